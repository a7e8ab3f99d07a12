package task

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
)

// Kin says which tasks go well together on one engine: those whose prompts begin alike share its prefix cache, and those of about
// the same length end together. It stands in a task's ready row, so that whoever claims can choose without waking the task; it is a
// hint, and a wrong one costs time only.
type Kin struct {
	Marks [len(markAt)]uint32 // of the prompt's first bytes, see markAt; 0 past its end
	Size  uint8               // bits of max_tokens: how long its answer may be, which an engine that answers whole batches waits for; 0 where it is not said
}

// markAt is where marks are taken, in bytes of the prompt: from a short system prompt to a long document. A prompt that ends
// before has no such mark.
var markAt = [...]int{128, 512, 2048, 8192}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Kin looks at the next request of the task as it will be sent, but for what data_url gives: its URL stands for that.
func (r *Record) Kin() (k Kin) {
	size, at := 0, 0
	var sum uint32
	add := func(text string) {
		size += len(text)
		for len(text) > 0 && at < len(markAt) {
			n := min(len(text), markAt[at]-(size-len(text)))
			sum = crc32.Update(sum, castagnoli, []byte(text[:n]))
			if text = text[n:]; size-len(text) == markAt[at] {
				k.Marks[at] = max(sum, 1)
				at++
			}
		}
	}
	s := r.Spec
	if len(s.Request) > 0 {
		add(string(conversationOf(s.Request)))
	} else {
		for _, m := range r.Conversation() {
			add(m.Role)
			add(m.Content)
		}
		add(s.DataURL)
	}
	k.Size = uint8(bits.Len(uint(max(s.MaxTokens, 0))))
	return k
}

// conversationOf cuts what stands before the prompt in a request's body: that may differ where prompts are alike.
func conversationOf(body []byte) []byte {
	first := len(body)
	for _, field := range []string{`"messages"`, `"prompt"`, `"input"`} {
		if i := bytes.Index(body[:first], []byte(field)); i >= 0 {
			first = i
		}
	}
	if first == len(body) {
		return body
	}
	return body[first:]
}

// kinSize is the bytes of a Kin in a row.
const kinSize = 4*len(markAt) + 1

func (k Kin) append(b []byte) []byte {
	b = append(b, k.Size)
	for _, m := range k.Marks {
		b = binary.BigEndian.AppendUint32(b, m)
	}
	return b
}

// parseKin reads what append wrote; rows of older programs have none.
func parseKin(b []byte) (k Kin) {
	if len(b) < kinSize {
		return k
	}
	k.Size = b[0]
	for i := range k.Marks {
		k.Marks[i] = binary.BigEndian.Uint32(b[1+4*i:])
	}
	return k
}

// warmMax bounds the marks that an engine is taken to have in its prefix cache.
const warmMax = 256

// Warm is the marks of what an engine had last, newest last: it may have them in its prefix cache.
type Warm []uint32

// Add puts the marks of a work at the end.
func (w Warm) Add(k Kin) Warm {
	for _, m := range k.Marks {
		if m == 0 {
			break
		}
		if i := slices.Index(w, m); i >= 0 {
			w = slices.Delete(w, i, i+1)
		}
		w = append(w, m)
	}
	if len(w) > warmMax {
		w = slices.Clone(w[len(w)-warmMax:])
	}
	return w
}

// depth is how many of a prompt's marks are warm from its start on.
func (k Kin) depth(warm map[uint32]bool) int {
	for i, m := range k.Marks {
		if m == 0 || !warm[m] {
			return i
		}
	}
	return len(k.Marks)
}

// Taste is what whoever claims would like to get of those that wait.
type Taste struct {
	Warm   Warm `json:"warm,omitempty"`   // tasks that begin like these, or like each other
	Alike  bool `json:"alike,omitempty"`  // tasks that begin like each other, also with nothing warm
	Length bool `json:"length,omitempty"` // tasks of about the same length
}

// any tells that there is a choice to make.
func (t *Taste) any() bool { return t.Alike || t.Length || len(t.Warm) > 0 }

// choose returns the indexes, in order, of n of the rows: those that begin like what is warm, or like the first of them, go before
// others, and then those of the first one's length. The first row is among them if must is set.
func choose(rows []ReadyKey, n int, t Taste, must bool) []int {
	known := make(map[uint32]bool, len(t.Warm)+len(markAt))
	for _, m := range t.Warm {
		known[m] = true
	}
	best := 0
	for i := range rows {
		if !must && rows[i].Kin.depth(known) > rows[best].Kin.depth(known) {
			best = i
		}
	}
	lead := rows[best].Kin
	for _, m := range lead.Marks {
		known[m] = true
	}
	delete(known, 0)
	type scored struct{ i, depth, apart int }
	all := make([]scored, len(rows))
	for i := range rows {
		k := &rows[i].Kin
		all[i] = scored{i: i, depth: k.depth(known)}
		if t.Length {
			all[i].apart = max(int(k.Size)-int(lead.Size), int(lead.Size)-int(k.Size))
		}
	}
	if must {
		all[0].depth = len(markAt) + 1
	}
	slices.SortStableFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.depth, a.depth), cmp.Compare(a.apart, b.apart))
	})
	out := make([]int, n)
	for i := range out {
		out[i] = all[i].i
	}
	slices.Sort(out)
	return out
}
