package mesh

import (
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	partialMax      = 256       // letters that arrive in parts at once
	partialBytesMax = 256 << 20 // bytes of their bodies together
	partialAge      = time.Minute
)

func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// split cuts a letter with a large body into parts, so that no batch of them is over gRPC's limit and small letters
// need not wait behind a large one. A small letter is its own only part.
func split(l *wire.Letter) []*wire.Letter {
	if len(l.Body) <= partMax {
		return []*wire.Letter{l}
	}
	body := l.Body
	n := (len(body) + partMax - 1) / partMax
	parts := make([]*wire.Letter, n)
	for i := range parts {
		p := l
		if i > 0 {
			p = &wire.Letter{Kind: l.Kind, From: l.From, Call: l.Call}
		}
		p.Body = body[i*partMax : min((i+1)*partMax, len(body))]
		p.Part, p.Parts = uint32(i), uint32(n)
		parts[i] = p
	}
	l.Size = uint64(len(body))
	return parts
}

// partial collects letters that come in parts. Parts of one letter arrive in order, unless a connection broke between
// them: then the letter is lost, as a letter may be. It is not safe for concurrent use.
type partial struct {
	open  map[partialKey]*partialLetter
	bytes int // sizes of all open ones
}

type partialKey struct {
	from string
	kind wire.Kind
	call uint64
}

type partialLetter struct {
	first  *wire.Letter
	body   []byte
	next   uint32
	expire time.Time
}

func newPartial() *partial { return &partial{open: map[partialKey]*partialLetter{}} }

// add takes a letter. It returns a whole one when l is whole or completes it, nil while parts are missing, and an error for
// what makes no sense or has no room; the letter is then forgotten.
func (p *partial) add(l *wire.Letter, now time.Time) (*wire.Letter, error) {
	if l.Parts <= 1 {
		return l, nil
	}
	key := partialKey{l.From, l.Kind, l.Call}
	have := p.open[key]
	if l.Part == 0 {
		p.forget(key)
		if l.Parts > partsMax || l.Size > BodyMax || l.Size <= uint64(len(l.Body)) {
			return nil, fault.New(fault.TooLarge, "mesh.part", l.From, "%d bytes in %d parts", l.Size, l.Parts)
		}
		if len(p.open) >= partialMax || p.bytes+int(l.Size) > partialBytesMax {
			return nil, fault.New(fault.Overloaded, "mesh.part", l.From, "%d letters of %d bytes arrive in parts: partialMax or partialBytesMax is reached", len(p.open), p.bytes)
		}
		have = &partialLetter{first: l, expire: now.Add(partialAge)}
		p.open[key] = have
		p.bytes += int(l.Size)
	}
	if have == nil || l.Part != have.next || l.Parts != have.first.Parts || uint64(len(have.body)+len(l.Body)) > have.first.Size {
		p.forget(key)
		return nil, fault.New(fault.Unavailable, "mesh.part", l.From, "part %d of %d does not follow", l.Part, l.Parts)
	}
	if have.body == nil {
		have.body = make([]byte, 0, min(have.first.Size, 4*partMax)) // the rest when it really comes
	}
	have.body = append(have.body, l.Body...)
	have.next++
	if have.next < have.first.Parts {
		return nil, nil
	}
	p.forget(key)
	if uint64(len(have.body)) != have.first.Size {
		return nil, fault.New(fault.Unavailable, "mesh.part", l.From, "%d bytes came of %d", len(have.body), have.first.Size)
	}
	whole := have.first
	whole.Body, whole.Part, whole.Parts = have.body, 0, 1
	return whole, nil
}

func (p *partial) forget(key partialKey) {
	if have := p.open[key]; have != nil {
		p.bytes -= int(have.first.Size)
		delete(p.open, key)
	}
}

// sweep forgets what stopped coming.
func (p *partial) sweep(now time.Time) {
	for key, have := range p.open {
		if now.After(have.expire) {
			p.forget(key)
		}
	}
}
