package grammar

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Limits of numbers. Sixteen digits are what a float64 holds, so nothing is lost in whoever reads them.
const (
	digitsMax = 16
	wholeMax  = 9_999_999_999_999_999 // digitsMax nines
	boundMax  = 1e15                  // of minimum and maximum
)

var digit = class{{'0', '9'}}

// bounds are what a schema says of a number's size. low and high are whole; the open flags leave them out themselves.
type bounds struct {
	low, high         int64
	lowOpen, highOpen bool
	given             bool
}

func (c *converter) integer(o *object, path string) (expr, error) {
	b, err := boundsOf(o, path, true)
	if err != nil {
		return nil, err
	}
	if step, ok := o.get("multipleOf"); ok && encode(step) != "1" {
		return nil, &Error{Path: path, Keyword: "multipleOf", Remedy: "leave it out, or list the values as enum"}
	}
	if !b.given {
		return c.add("integer", seq{optional(lit("-")), whole()}), nil
	}
	if b.low > b.high {
		return nil, &Error{Path: path, Keyword: "minimum", Remedy: "no whole number is left between the bounds"}
	}
	var out []expr
	if b.low < 0 {
		out = append(out, seq{lit("-"), either(between(max(1, -b.high), -b.low))})
	}
	if b.high >= 0 {
		out = append(out, between(max(0, b.low), b.high)...)
	}
	return c.add("integer", either(out)), nil
}

func (c *converter) number(o *object, path string) (expr, error) {
	places, err := placesOf(o, path)
	if err != nil {
		return nil, err
	}
	b, err := boundsOf(o, path, false)
	if err != nil {
		return nil, err
	}
	if !b.given {
		e := seq{optional(lit("-")), whole(), fraction(places)}
		if _, stepped := o.get("multipleOf"); !stepped {
			e = append(e, optional(class{{'E', 'E'}, {'e', 'e'}}, optional(class{{'+', '+'}, {'-', '-'}}), rep{of: digit, min: 1, max: 2}))
		}
		return c.add("number", e), nil
	}
	var out []expr
	if b.low < 0 {
		for _, e := range sized(max(-b.high, 0), -b.low, b.highOpen && b.high <= 0, b.lowOpen, places) {
			out = append(out, seq{lit("-"), e})
		}
	}
	if b.high >= 0 {
		out = append(out, sized(max(b.low, 0), b.high, b.lowOpen && b.low >= 0, b.highOpen, places)...)
	}
	if len(out) == 0 {
		return nil, &Error{Path: path, Keyword: "minimum", Remedy: "no number is left between the bounds"}
	}
	return c.add("number", either(out)), nil
}

// whole is digits without a needless zero in front.
func whole() expr {
	return alt{lit("0"), seq{class{{'1', '9'}}, rep{of: digit, max: digitsMax - 1}}}
}

func fraction(places int) expr {
	if places == 0 {
		return seq{}
	}
	return optional(lit("."), rep{of: digit, min: 1, max: places})
}

// sized are the numbers from low to high, neither below zero.
func sized(low, high int64, lowOpen, highOpen bool, places int) (out []expr) {
	switch {
	case low > high:
		return nil
	case low == high:
		if lowOpen || highOpen {
			return nil
		}
		return []expr{lit(strconv.FormatInt(low, 10))}
	}
	from := low
	if lowOpen {
		from++
		if places > 0 { // more than low by a fraction that is not zero
			out = append(out, seq{lit(strconv.FormatInt(low, 10) + "."), rep{of: digit, max: places - 1}, class{{'1', '9'}}})
		}
	}
	if from < high {
		out = append(out, seq{either(between(from, high-1)), fraction(places)})
	}
	if !highOpen {
		out = append(out, lit(strconv.FormatInt(high, 10)))
	}
	return out
}

// between are the whole numbers from low to high, neither below zero, as decimal texts.
func between(low, high int64) (out []expr) {
	for low <= high {
		a := strconv.FormatInt(low, 10)
		last := min(high, int64(math.Pow10(len(a)))-1) // of as many digits
		out = append(out, sameLength(a, strconv.FormatInt(last, 10)))
		low = last + 1
	}
	return out
}

// sameLength are the texts of digits from a to b, both of one length.
func sameLength(a, b string) expr {
	n := len(a)
	switch {
	case n == 0:
		return seq{}
	case a == b:
		return lit(a)
	case a == strings.Repeat("0", n) && b == strings.Repeat("9", n):
		return rep{of: digit, min: n, max: n}
	case a[0] == b[0]:
		return seq{lit(a[:1]), sameLength(a[1:], b[1:])}
	}
	var out []expr
	low, high := rune(a[0]), rune(b[0])
	zeros, nines := strings.Repeat("0", n-1), strings.Repeat("9", n-1)
	if a[1:] != zeros {
		out = append(out, seq{lit(a[:1]), sameLength(a[1:], nines)})
		low++
	}
	if b[1:] != nines {
		high--
	}
	if low <= high {
		out = append(out, seq{class{{low, high}}, sameLength(zeros, nines)})
	}
	if b[1:] != nines {
		out = append(out, seq{lit(b[:1]), sameLength(zeros, b[1:])})
	}
	return either(out)
}

// boundsOf reads minimum and its kin. For integers bounds may have fractions; otherwise they must be whole.
func boundsOf(o *object, path string, integer bool) (bounds, error) {
	b := bounds{low: -wholeMax, high: wholeMax}
	for _, key := range []string{"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"} {
		v, ok := o.get(key)
		if !ok {
			continue
		}
		number, isNumber := v.(json.Number)
		f, err := strconv.ParseFloat(number.String(), 64)
		switch {
		case !isNumber || err != nil:
			return b, &Error{Path: path, Keyword: key, Remedy: "it must be a number"}
		case math.Abs(f) > boundMax:
			return b, &Error{Path: path, Keyword: key, Remedy: fmt.Sprintf("it is beyond %g in size: leave it out", boundMax)}
		case !integer && f != math.Trunc(f):
			return b, &Error{Path: path, Keyword: key, Remedy: "use a whole number as the bound, or scale the value so that it is one"}
		}
		b.given = true
		b.narrow(key, f, integer)
	}
	return b, nil
}

func (b *bounds) narrow(key string, f float64, integer bool) {
	open := strings.HasPrefix(key, "exclusive")
	if strings.HasSuffix(strings.ToLower(key), "minimum") {
		low := int64(math.Ceil(f))
		if integer && open && f == math.Trunc(f) {
			low, open = low+1, false
		}
		open = open && !integer
		if low > b.low || (low == b.low && open) {
			b.low, b.lowOpen = low, open
		}
		return
	}
	high := int64(math.Floor(f))
	if integer && open && f == math.Trunc(f) {
		high, open = high-1, false
	}
	open = open && !integer
	if high < b.high || (high == b.high && open) {
		b.high, b.highOpen = high, open
	}
}

// placesOf reads how many decimal places multipleOf leaves: 0.01 leaves two.
func placesOf(o *object, path string) (int, error) {
	step, ok := o.get("multipleOf")
	if !ok {
		return digitsMax - 1, nil
	}
	text := encode(step)
	if text == "1" {
		return 0, nil
	}
	zeros, ok := strings.CutPrefix(strings.TrimSuffix(text, "1"), "0.")
	if ok && strings.HasSuffix(text, "1") && strings.Trim(zeros, "0") == "" && len(zeros) < digitsMax-1 {
		return len(zeros) + 1, nil
	}
	return 0, &Error{Path: path, Keyword: "multipleOf", Remedy: "only 1, 0.1, 0.01 and so on are supported: leave it out"}
}
