package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestPartsMakeTheWhole: letters cut in parts and interleaved arrive whole, and nothing is left.
func TestPartsMakeTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPartial()
		var queues [][]*wire.Letter
		want := map[uint64][]byte{}
		for i := range rapid.IntRange(1, 4).Draw(t, "letters") {
			body := bytes.Repeat([]byte{byte(i + 1)}, rapid.IntRange(0, 3*partMax).Draw(t, "size"))
			want[uint64(i)] = body
			queues = append(queues, split(&wire.Letter{From: "b", Call: uint64(i), Op: "x", Body: body}))
		}
		for len(queues) > 0 {
			i := rapid.IntRange(0, len(queues)-1).Draw(t, "next")
			l := queues[i][0]
			if len(l.Body) > partMax {
				t.Fatal("a part over partMax")
			}
			whole, err := p.add(l, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			if queues[i] = queues[i][1:]; len(queues[i]) == 0 {
				queues = append(queues[:i], queues[i+1:]...)
				if whole == nil || whole.Op != "x" || !bytes.Equal(whole.Body, want[whole.Call]) {
					t.Fatal("not whole")
				}
			} else if whole != nil {
				t.Fatal("whole too early")
			}
		}
		if len(p.open) != 0 || p.bytes != 0 {
			t.Fatal("something is left")
		}
	})
}

func TestPartsThatDoNotFit(t *testing.T) {
	now := time.Now()
	cut := func() []*wire.Letter { return split(&wire.Letter{From: "b", Call: 1, Body: make([]byte, 3*partMax)}) }
	for what, harm := range map[string]func([]*wire.Letter) []*wire.Letter{
		"one is missing": func(l []*wire.Letter) []*wire.Letter { return []*wire.Letter{l[0], l[2]} },
		"no first":       func(l []*wire.Letter) []*wire.Letter { return l[1:] },
		"more parts":     func(l []*wire.Letter) []*wire.Letter { l[1].Parts = 9; return l[:2] },
		"more bytes":     func(l []*wire.Letter) []*wire.Letter { l[0].Size = partMax + 1; return l[:2] },
		"fewer bytes":    func(l []*wire.Letter) []*wire.Letter { l[0].Size += 5; return l },
		"too many parts": func(l []*wire.Letter) []*wire.Letter { l[0].Parts = partsMax + 1; return l[:1] },
		"too large":      func(l []*wire.Letter) []*wire.Letter { l[0].Size = BodyMax + 1; return l[:1] },
		"size too small": func(l []*wire.Letter) []*wire.Letter { l[0].Size = 1; return l[:1] },
		"huge size":      func(l []*wire.Letter) []*wire.Letter { l[0].Size = 1 << 63; return l[:1] },
	} {
		p := newPartial()
		var err error
		for _, l := range harm(cut()) {
			whole, e := p.add(l, now)
			require.Nil(t, whole, what)
			err = errors.Join(err, e)
		}
		require.Error(t, err, what)
		require.Empty(t, p.open, what)
		require.Zero(t, p.bytes, what)
	}

	p := newPartial()
	for i := range partialMax {
		_, err := p.add(&wire.Letter{From: "b", Call: uint64(i), Parts: 2, Size: 10}, now)
		require.NoError(t, err)
	}
	_, err := p.add(&wire.Letter{From: "b", Call: partialMax, Parts: 2, Size: 10}, now)
	require.Equal(t, fault.Overloaded, fault.KindOf(err))
	_, err = p.add(&wire.Letter{From: "b", Call: 0, Parts: 2, Size: 10}, now)
	require.NoError(t, err, "begun anew")
	p.sweep(now.Add(partialAge))
	require.Len(t, p.open, partialMax)
	p.sweep(now.Add(partialAge + 1))
	require.Empty(t, p.open)
	require.Zero(t, p.bytes)
	for i := range partialBytesMax / BodyMax {
		_, err := p.add(&wire.Letter{From: "b", Call: uint64(i), Parts: 2, Size: BodyMax}, now)
		require.NoError(t, err)
	}
	_, err = p.add(&wire.Letter{From: "c", Parts: 2, Size: BodyMax}, now)
	require.Equal(t, fault.Overloaded, fault.KindOf(err))
}

func TestFaultsTravel(t *testing.T) {
	for _, k := range []fault.Kind{fault.Unknown, fault.Invalid, fault.NotFound, fault.Conflict, fault.Fenced, fault.Unavailable, fault.Overloaded,
		fault.NoSpace, fault.TooLarge, fault.Timeout, fault.Corrupt, fault.Refused, fault.Malformed} {
		sent := fault.New(k, "x.do", "key", "why: %w", errors.New("deep")).WithRemedy("do that")
		got := faultOf(faultLetter(sent))
		require.Equal(t, sent.Error(), got.Error())
		require.Equal(t, k, fault.KindOf(got))
		require.Equal(t, "do that", fault.RemedyOf(got))
	}
	inner := fault.New(fault.Conflict, "x.do", "", "moved on").WithRemedy("again")
	got := faultOf(faultLetter(fmt.Errorf("step: %w", inner)))
	require.Equal(t, fault.Conflict, fault.KindOf(got))
	require.Equal(t, "again", fault.RemedyOf(got))
	require.Equal(t, fault.Timeout, fault.KindOf(faultOf(faultLetter(context.DeadlineExceeded))))
	require.Equal(t, fault.Unknown, fault.KindOf(faultOf(&wire.Fault{Kind: "of a newer version", Text: "x"})))

	l := answerLetter(1, outcome{err: fault.New(fault.Unknown, "\xff", string(make([]byte, 9999)), "\xff")})
	b, err := proto.Marshal(l)
	require.NoError(t, err, "whatever a handler says can be sent")
	require.Less(t, len(b), letterMax)
	require.NotNil(t, answerLetter(1, outcome{answer: Answer{Body: make([]byte, BodyMax+1)}}).Fault)
	require.NotNil(t, answerLetter(1, outcome{answer: Answer{Type: string(make([]byte, fieldsMax+1))}}).Fault)
}

func TestALetterIsTakenOnce(t *testing.T) {
	gone := 0
	o := &outgoing{deadline: time.Now().Add(time.Hour), gone: func() { gone++ }}
	o.letter.Store(&wire.Letter{Kind: wire.Kind_REQUEST})
	s, err := o.Serialize()
	require.NoError(t, err)
	require.Positive(t, s.(sealed).LeftMs)
	o.take()
	_, err = o.Serialize()
	require.Error(t, err)
	require.Equal(t, 1, gone)

	o = &outgoing{deadline: time.Now().Add(-time.Second), gone: func() { gone++ }}
	o.letter.Store(&wire.Letter{})
	_, err = o.Serialize()
	require.Error(t, err, "nobody waits")
	require.Equal(t, 2, gone)
}

func TestCalls(t *testing.T) {
	c := newCalls()
	id, k := c.begin("b")
	require.False(t, c.answer(id, "c", outcome{}), "of another node than was asked")
	require.False(t, c.answer(id+1, "b", outcome{}))
	require.True(t, c.answer(id, "b", outcome{answer: Answer{Type: "x"}}))
	require.False(t, c.answer(id, "b", outcome{}), "twice")
	require.Equal(t, "x", (<-k.done).answer.Type)
	_, kb := c.begin("b")
	idc, _ := c.begin("c")
	require.Equal(t, 1, c.fail("b", errStopped))
	require.ErrorIs(t, (<-kb.done).err, errStopped)
	c.end(idc)
	require.Zero(t, c.fail("", errStopped))
	require.Empty(t, c.open)
}
