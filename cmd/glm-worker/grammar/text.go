package grammar

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"unicode"
)

// lengthMax is the most that minLength and maxLength may say; llama.cpp refuses more repetitions.
const lengthMax = 2000

// spans are sets of characters, in order and apart.
type spans []span

// plainSpans are the characters that stand for themselves in a JSON string: no quote, backslash or control character,
// and no surrogate, which is no character.
var plainSpans = spans{{' ', '!'}, {'#', '['}, {']', 0xD7FF}, {0xE000, unicode.MaxRune}}

// escapes are the characters that have a short escape, with its letter.
var escapes = []struct {
	char   rune
	letter string
}{{'"', `"`}, {'\\', `\`}, {'\b', "b"}, {'\f', "f"}, {'\n', "n"}, {'\r', "r"}, {'\t', "t"}}

// char is one character of a JSON string, written in any way. An escaped surrogate is left out: half a character.
func (c *converter) char() ref {
	hex := class{{'0', '9'}, {'A', 'F'}, {'a', 'f'}}
	code := alt{
		seq{class{{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}}, rep{of: hex, min: 3, max: 3}},
		seq{class{{'D', 'D'}, {'d', 'd'}}, class{{'0', '7'}}, rep{of: hex, min: 2, max: 2}},
	}
	short := class{{'"', '"'}, {'/', '/'}, {'\\', '\\'}, {'b', 'b'}, {'f', 'f'}, {'n', 'n'}, {'r', 'r'}, {'t', 't'}}
	return c.add("char", alt{class(plainSpans), seq{lit(`\`), alt{short, seq{lit("u"), code}}}})
}

func (c *converter) text(o *object, path string) (expr, error) {
	low, bounded, err := count(o, "minLength", path, lengthMax)
	if err != nil {
		return nil, err
	}
	high, short, err := count(o, "maxLength", path, lengthMax)
	if err != nil {
		return nil, err
	}
	pattern, hasPattern := o.get("pattern")
	format, hasFormat := o.get("format")
	switch {
	case hasPattern && (bounded || short || hasFormat):
		return nil, &Error{Path: path, Keyword: "pattern", Remedy: "put the length or format into the pattern, and leave the other keyword out"}
	case hasFormat && (bounded || short):
		return nil, &Error{Path: path, Keyword: "format", Remedy: "it settles the length: leave minLength and maxLength out"}
	case hasPattern:
		return c.pattern(pattern, path)
	case hasFormat:
		return c.format(format, path)
	case !short:
		high = -1
	case high < low:
		return nil, &Error{Path: path, Keyword: "maxLength", Remedy: "it is less than minLength"}
	}
	if high == 0 {
		return lit(`""`), nil
	}
	return c.add("string", c.quoted(rep{of: c.char(), min: low, max: high})), nil
}

func (c *converter) format(format any, path string) (expr, error) {
	hex := func(n int) expr { return rep{of: class{{'0', '9'}, {'a', 'f'}}, min: n, max: n} }
	switch format {
	case "date":
		return c.quoted(c.date()), nil
	case "time":
		return c.quoted(c.time()), nil
	case "date-time":
		return c.quoted(seq{c.date(), lit("T"), c.time()}), nil
	case "uuid":
		return c.quoted(seq{hex(8), lit("-"), hex(4), lit("-"), hex(4), lit("-"), hex(4), lit("-"), hex(12)}), nil
	}
	return nil, &Error{Path: path, Keyword: "format", Remedy: fmt.Sprintf("%s is not known here (date, time, date-time, uuid are): use pattern", encode(format))}
}

// date is a day that there is: 29 February in leap years only.
func (c *converter) date() expr {
	digit := class{{'0', '9'}}
	odd, even := class{{'1', '1'}, {'3', '3'}, {'5', '5'}, {'7', '7'}, {'9', '9'}}, class{{'0', '0'}, {'2', '2'}, {'4', '4'}, {'6', '6'}, {'8', '8'}}
	by4 := alt{seq{odd, class{{'2', '2'}, {'6', '6'}}}, seq{even, class{{'0', '0'}, {'4', '4'}, {'8', '8'}}}} // 00 to 96
	by4no0 := alt{seq{odd, class{{'2', '2'}, {'6', '6'}}}, seq{lit("0"), class{{'4', '4'}, {'8', '8'}}},
		seq{class{{'2', '2'}, {'4', '4'}, {'6', '6'}, {'8', '8'}}, class{{'0', '0'}, {'4', '4'}, {'8', '8'}}}}
	leap := alt{seq{by4, lit("00")}, seq{digit, digit, by4no0}}
	to28 := alt{seq{lit("0"), class{{'1', '9'}}}, seq{lit("1"), digit}, seq{lit("2"), class{{'0', '8'}}}}
	to30 := alt{lit("29"), lit("30")}
	days := alt{
		seq{alt{seq{lit("0"), class{{'1', '9'}}}, seq{lit("1"), class{{'0', '2'}}}}, lit("-"), to28},
		seq{alt{lit("01"), seq{lit("0"), class{{'3', '9'}}}, seq{lit("1"), class{{'0', '2'}}}}, lit("-"), to30},
		seq{alt{lit("01"), lit("03"), lit("05"), lit("07"), lit("08"), lit("10"), lit("12")}, lit("-31")},
	}
	return c.add("date", alt{seq{rep{of: digit, min: 4, max: 4}, lit("-"), days}, seq{leap, lit("-02-29")}})
}

func (c *converter) time() expr {
	sixty := seq{class{{'0', '5'}}, class{{'0', '9'}}}
	hour := alt{seq{class{{'0', '1'}}, class{{'0', '9'}}}, seq{lit("2"), class{{'0', '3'}}}}
	zone := alt{lit("Z"), seq{class{{'+', '+'}, {'-', '-'}}, hour, lit(":"), sixty}}
	return c.add("time", seq{hour, lit(":"), sixty, lit(":"), sixty, optional(lit("."), rep{of: class{{'0', '9'}}, min: 1, max: 9}), zone})
}

// pattern converts a regular expression. As in JSON Schema it may match anywhere unless anchored.
func (c *converter) pattern(pattern any, path string) (expr, error) {
	text, ok := pattern.(string)
	if !ok {
		return nil, &Error{Path: path, Keyword: "pattern", Remedy: "it must be a regular expression"}
	}
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, &Error{Path: path, Keyword: "pattern", Remedy: fmt.Sprintf("%v: write it without look-around and back references", err)}
	}
	p := patterns{c: c}
	body := p.convert(re, true, true)
	if p.refused != "" {
		return nil, &Error{Path: path, Keyword: "pattern", Remedy: p.refused}
	}
	return c.add("string", c.quoted(body)), nil
}

// patterns converts regular expressions; refused keeps why it could not.
type patterns struct {
	c       *converter
	refused string
}

func (p *patterns) refuse(why string) expr {
	if p.refused == "" {
		p.refused = why
	}
	return seq{}
}

// convert takes whether the piece is at the pattern's start or end. There, unless an anchor stands, anything may come.
func (p *patterns) convert(re *syntax.Regexp, start, end bool) expr {
	anything := rep{of: p.c.char(), max: -1}
	open := func(e expr) expr { // not anchored on the sides where the pattern is open
		out := seq{e}
		if start {
			out = append(seq{anything}, out...)
		}
		if end {
			out = append(out, anything)
		}
		return one(out)
	}
	switch re.Op {
	case syntax.OpNoMatch:
		return p.refuse("it matches nothing")
	case syntax.OpEmptyMatch:
		if start || end {
			return anything
		}
		return seq{}
	case syntax.OpBeginText, syntax.OpEndText:
		if (re.Op == syntax.OpBeginText && !start) || (re.Op == syntax.OpEndText && !end) {
			return p.refuse("^ may stand at its start and $ at its end only")
		}
		if start && end { // it is the whole pattern
			return anything
		}
		return seq{}
	case syntax.OpLiteral:
		var out seq
		for _, r := range re.Rune {
			out = append(out, p.one(folded(r, re.Flags&syntax.FoldCase != 0)))
		}
		return open(one(out))
	case syntax.OpCharClass:
		var set spans
		for i := 0; i < len(re.Rune); i += 2 {
			set = append(set, span{re.Rune[i], re.Rune[i+1]})
		}
		return open(p.one(set))
	case syntax.OpAnyChar:
		return open(p.one(spans{{0, unicode.MaxRune}}))
	case syntax.OpAnyCharNotNL: // what ends a line elsewhere ends it here
		return open(p.one(spans{{0, '\t'}, {'\v', '\f'}, {0x0E, 0x2027}, {0x202A, unicode.MaxRune}}))
	case syntax.OpCapture:
		return p.convert(re.Sub[0], start, end)
	case syntax.OpConcat:
		var out seq
		for i, sub := range re.Sub {
			out = append(out, p.convert(sub, start && i == 0, end && i == len(re.Sub)-1))
		}
		return out
	case syntax.OpAlternate:
		// llama.cpp walks every way to write nothing, so two of them, several times over, take for ever.
		if empty := slices.DeleteFunc(slices.Clone(re.Sub), func(s *syntax.Regexp) bool { return !nullable(s) }); len(empty) > 1 {
			return p.refuse("more than one of its alternatives may be empty: make them need a character, and the group optional")
		}
		var out alt
		for _, sub := range re.Sub {
			out = append(out, p.convert(sub, start, end))
		}
		return out
	case syntax.OpQuest:
		if nullable(re.Sub[0]) { // optional already, and once is enough: see OpAlternate
			return open(p.convert(re.Sub[0], false, false))
		}
		return open(optional(p.convert(re.Sub[0], false, false)))
	case syntax.OpStar, syntax.OpPlus, syntax.OpRepeat:
		if nullable(re.Sub[0]) {
			return p.refuse("it repeats a group that may be empty: make the group need a character")
		}
		low, high := re.Min, re.Max
		switch re.Op {
		case syntax.OpStar:
			low, high = 0, -1
		case syntax.OpPlus:
			low, high = 1, -1
		}
		if high == 0 {
			return open(seq{})
		}
		return open(rep{of: p.convert(re.Sub[0], false, false), min: low, max: high})
	}
	return p.refuse("word boundaries and line anchors are not supported: say which characters may stand there")
}

// one is a character of a set as JSON writes it: as itself, or with the usual escape.
func (p *patterns) one(set spans) expr {
	var out []expr
	if plain := intersect(set, plainSpans); len(plain) > 0 {
		out = append(out, class(plain))
	}
	for _, e := range escapes {
		if inside(set, e.char) {
			out = append(out, lit(`\`+e.letter))
		}
	}
	if len(out) == 0 {
		return p.refuse("it needs a control character, which answers do not have")
	}
	return either(out)
}

func folded(r rune, fold bool) spans {
	set := spans{{r, r}}
	for f := unicode.SimpleFold(r); fold && f != r; f = unicode.SimpleFold(f) {
		set = append(set, span{f, f})
	}
	slices.SortFunc(set, func(a, b span) int { return int(a[0] - b[0]) })
	return set
}

func nullable(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpStar, syntax.OpQuest, syntax.OpBeginText, syntax.OpEndText:
		return true
	case syntax.OpLiteral:
		return len(re.Rune) == 0
	case syntax.OpRepeat:
		return re.Min == 0 || nullable(re.Sub[0])
	case syntax.OpPlus, syntax.OpCapture:
		return nullable(re.Sub[0])
	case syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(s *syntax.Regexp) bool { return !nullable(s) })
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, nullable)
	}
	return false
}

func intersect(a, b spans) (out spans) {
	for _, x := range a {
		for _, y := range b {
			if low, high := max(x[0], y[0]), min(x[1], y[1]); low <= high {
				out = append(out, span{low, high})
			}
		}
	}
	return out
}

func inside(set spans, r rune) bool {
	return slices.ContainsFunc(set, func(s span) bool { return s[0] <= r && r <= s[1] })
}

// without takes one character out of a set.
func without(set spans, r rune) (out spans) {
	for _, s := range set {
		if r < s[0] || s[1] < r {
			out = append(out, s)
			continue
		}
		if s[0] < r {
			out = append(out, span{s[0], r - 1})
		}
		if r < s[1] {
			out = append(out, span{r + 1, s[1]})
		}
	}
	return out
}
