package mesh

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	// BodyMax is the size of a request's or an answer's body at most.
	BodyMax = 16 << 20 // bytes

	fieldsMax = 16 << 10  // bytes: all texts of a request together
	textMax   = 4 << 10   // bytes: each text of a fault; longer ones are cut
	partMax   = 128 << 10 // bytes of body in one letter: 256 letters are 32 MiB, below gRPC's limit as set in link.go
	letterMax = partMax + fieldsMax + 5*textMax
	partsMax  = BodyMax / partMax
)

// check refuses a request that no node would take.
func (r *Request) check() error {
	if r.Op == "" {
		return fault.New(fault.Invalid, "mesh.ask", r.Key, "the request names no op")
	}
	if n := len(r.ID) + len(r.Op) + len(r.Kind) + len(r.Key) + len(r.Type) + len(r.Trace); n > fieldsMax {
		return fault.New(fault.TooLarge, "mesh.ask", r.Op, "%d bytes beside the body, over fieldsMax %d", n, fieldsMax)
	}
	for _, s := range []string{r.ID, r.Op, r.Kind, r.Key, r.Type, r.Trace} {
		if !utf8.ValidString(s) {
			return fault.New(fault.Invalid, "mesh.ask", r.Op, "%q is not UTF-8", s)
		}
	}
	return bodyFits("mesh.ask", r.Op, r.Body)
}

func bodyFits(op, key string, b []byte) error {
	if len(b) > BodyMax {
		return fault.New(fault.TooLarge, op, key, "a body of %d bytes, over the limit of %d", len(b), BodyMax)
	}
	return nil
}

func requestLetter(r *Request) *wire.Letter {
	return &wire.Letter{Id: r.ID, Op: r.Op, Shard: int32(r.Shard), Entity: r.Kind, Key: r.Key, Type: r.Type, Body: r.Body, Trace: r.Trace}
}

func requestOf(l *wire.Letter) *Request {
	return &Request{ID: l.Id, Op: l.Op, Shard: int(l.Shard), Kind: l.Entity, Key: l.Key, Type: l.Type, Body: l.Body, Trace: l.Trace}
}

func answerLetter(call uint64, o outcome) *wire.Letter {
	l := &wire.Letter{Kind: wire.Kind_ANSWER, Call: call}
	err := o.err
	if err == nil && len(o.answer.Type) > fieldsMax {
		err = fault.New(fault.TooLarge, "mesh.answer", "", "a type name of %d bytes", len(o.answer.Type))
	}
	if err == nil {
		err = bodyFits("mesh.answer", o.answer.Type, o.answer.Body)
	}
	if err != nil {
		l.Fault = faultLetter(err)
		return l
	}
	l.Type, l.Body = validText(o.answer.Type), o.answer.Body
	return l
}

func outcomeOf(l *wire.Letter) outcome {
	if l.Fault != nil {
		return outcome{err: faultOf(l.Fault)}
	}
	return outcome{answer: Answer{Type: l.Type, Body: l.Body}}
}

// faultLetter writes down an error: its kind and remedy wherever they are in the chain, its op, key and text as they read.
func faultLetter(err error) *wire.Fault {
	f := &wire.Fault{Kind: fault.KindOf(err).String(), Remedy: clip(fault.RemedyOf(err)), Text: clip(err.Error())}
	if fault.KindOf(err) == fault.Unknown && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		f.Kind = fault.Timeout.String()
	}
	if e, ok := err.(*fault.Error); ok { // the outermost: its parts are shown once
		f.Op, f.Key, f.Text = clip(e.Op), clip(e.Key), ""
		if e.Err != nil {
			f.Text = clip(e.Err.Error())
		}
	}
	return f
}

func faultOf(f *wire.Fault) error {
	e := &fault.Error{Op: f.Op, Key: f.Key, Kind: kinds[f.Kind], Remedy: f.Remedy}
	if f.Text != "" {
		e.Err = errors.New(f.Text)
	}
	return e
}

// kinds are fault's kinds by name. A kind that only a newer node knows is Unknown here.
var kinds = func() map[string]fault.Kind {
	m := map[string]fault.Kind{}
	for k := fault.Unknown + 1; k.String() != fault.Unknown.String(); k++ {
		m[k.String()] = k
	}
	return m
}()

// clip cuts a text to textMax and keeps it valid: protobuf carries nothing else as a string.
func clip(s string) string {
	if len(s) > textMax {
		s = s[:textMax]
	}
	return validText(s)
}

// left is the time from now to a deadline in whole milliseconds, at least one.
func left(deadline, now time.Time) uint64 {
	return uint64(max(1, deadline.Sub(now).Milliseconds()))
}
