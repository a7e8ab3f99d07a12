package entity_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/clustertest"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// purse is a kind that counts what it is given.
type (
	purse struct{ Sum, Times int }
	coin  struct{ N int }
	give  struct {
		N int `json:"n"`
	}
	total struct {
		Sum int `json:"sum"`
	}
	look struct{}
)

func purses(dedupe int, change ...func(*entity.Kind[purse, coin])) *entity.Kind[purse, coin] {
	k := &entity.Kind[purse, coin]{
		Name:  "purse",
		Apply: func(p purse, c coin) (purse, error) { return purse{p.Sum + c.N, p.Times + 1}, nil },
		Behave: func(purse) entity.Behavior[purse, coin] {
			return func(c *entity.Context[purse, coin]) {
				switch m := c.Message().(type) {
				case give:
					if m.N < 0 {
						c.Refuse(fault.New(fault.Conflict, "purse", c.ID(), "it only takes"))
						return
					}
					c.Commit(coin{m.N})
					c.ReplyWith(func(p purse) any { return total{p.Sum} })
				case look:
					c.Reply(total{c.State().Sum})
				}
			}
		},
		Types:  cluster.NewTypes().Add("give", give{}).Add("look", look{}).Add("total", total{}),
		Dedupe: dedupe,
	}
	for _, f := range change {
		f(k)
	}
	return k
}

type pair struct {
	*clustertest.Nodes
	t *testing.T
}

func newPair(t *testing.T, k *entity.Kind[purse, coin]) pair {
	return pair{clustertest.New(t, 2, 1, func() []cluster.Kind { return []cluster.Kind{k.Register()} }), t}
}

// at sends to a purse through a node.
func (p pair) at(node int, request, typ string, msg any) (cluster.Result, error) {
	p.t.Helper()
	body, err := json.Marshal(msg)
	require.NoError(p.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return p.Router(node).Command(ctx, persistence.Key{Kind: "purse", ID: "a"}, cluster.Command{ID: request, Type: typ, Body: body})
}

func (p pair) must(node int, request, typ string, msg any) (sum int, version uint64) {
	p.t.Helper()
	res, err := p.at(node, request, typ, msg)
	require.NoError(p.t, err)
	require.Equal(p.t, "total", res.Type)
	var v total
	require.NoError(p.t, json.Unmarshal(res.Body, &v))
	return v.Sum, res.Version
}

// TestARequestIsCarriedOutOnce: over moves of its owner, through either node, through snapshots that let the rows go.
func TestARequestIsCarriedOutOnce(t *testing.T) {
	for _, every := range []int{0, 2} {
		t.Run(fmt.Sprint("snapshot every ", every), func(t *testing.T) {
			p := newPair(t, purses(8, func(k *entity.Kind[purse, coin]) { k.SnapshotEvery, k.Truncate = every, every > 0 }))
			want := 0
			for i := 1; i <= 6; i++ {
				want += i
				for node := range 4 {
					sum, version := p.must(node%2, fmt.Sprint("r", i), "give", give{i})
					require.Equal(t, want, sum)
					require.EqualValues(t, i, version)
					if node == 1 {
						p.Move(i % 2)
					}
				}
			}
			sum, version := p.must(1, "r3", "give", give{3})
			require.Equal(t, 6, sum, "the answer of then, not of now")
			require.EqualValues(t, 3, version)
			sum, version = p.must(1, "x", "look", look{})
			require.Equal(t, 21, sum)
			require.EqualValues(t, 6, version)
			_, err := p.at(0, "r3", "give", give{4})
			require.Equal(t, fault.Conflict, fault.KindOf(err))
			require.NotEmpty(t, fault.RemedyOf(err))
		})
	}
}

func TestOnlySoManyAreRemembered(t *testing.T) {
	p := newPair(t, purses(2))
	for _, r := range []string{"1", "2", "3"} {
		p.must(0, r, "give", give{1})
	}
	sum, _ := p.must(0, "2", "give", give{1})
	require.Equal(t, 2, sum)
	sum, _ = p.must(0, "1", "give", give{1})
	require.Equal(t, 4, sum, "it was forgotten, as Dedupe says")
}

func TestARefusedRequestIsDecidedAnew(t *testing.T) {
	p := newPair(t, purses(8))
	for range 2 {
		_, err := p.at(0, "r", "give", give{-1})
		require.Equal(t, fault.Conflict, fault.KindOf(err))
	}
	sum, _ := p.must(0, "r", "give", give{2})
	require.Equal(t, 2, sum)
}

func TestTheSameRequestAtOnce(t *testing.T) {
	p := newPair(t, purses(8))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if res, err := p.at(i%2, "r", "give", give{7}); err != nil || string(res.Body) != `{"sum":7}` {
				t.Errorf("%s %v", res.Body, err)
			}
		})
		if i%8 == 0 {
			p.Move(i / 8 % 2)
		}
	}
	wg.Wait()
	sum, version := p.must(0, "", "look", look{})
	require.Equal(t, 7, sum)
	require.EqualValues(t, 1, version)
}

// TestALostAnswer: the row is in the journal, nobody heard of it, and the next owner is asked again.
func TestALostAnswer(t *testing.T) {
	p := newPair(t, purses(8))
	var once sync.Once
	p.Store.Memory(0).LoseAppend = func(int) (err error) {
		once.Do(func() { p.Move(1); err = fault.New(fault.Timeout, "test", "", "no word") })
		return err
	}
	sum, version := p.must(0, "r", "give", give{5})
	require.Equal(t, 5, sum)
	require.EqualValues(t, 1, version)
}

// TestAKindMayBeginToRemember: rows of before are read, and after it has ceased those of meanwhile.
func TestAKindMayBeginToRemember(t *testing.T) {
	var log persistence.Log
	row := func(p pair) {
		l, err := p.Router(0).Read(t.Context(), persistence.Key{Kind: "purse", ID: "a"}, 0)
		require.NoError(t, err)
		log = l
	}
	plain := newPair(t, purses(0))
	plain.must(0, "r", "give", give{1})
	sum, _ := plain.must(0, "r", "give", give{1})
	require.Equal(t, 2, sum, "a kind that remembers nothing")
	row(plain)
	require.Equal(t, `[{"N":1}]`, string(log.Rows[0].Data), "its rows are as they always were")
	state, seq, err := purses(8).Fold("a", log)
	require.NoError(t, err)
	require.Equal(t, purse{2, 2}, state)
	require.EqualValues(t, 2, seq)

	marked := newPair(t, purses(8, func(k *entity.Kind[purse, coin]) { k.SnapshotEvery = 2 }))
	for _, r := range []string{"1", "2", "3"} {
		marked.must(0, r, "give", give{1})
	}
	row(marked)
	require.EqualValues(t, 2, log.SnapSeq)
	state, _, err = purses(0).Fold("a", log)
	require.NoError(t, err)
	require.Equal(t, purse{3, 3}, state)
}

func TestAnAnswerTooLargeToRememberRefusesTheCommit(t *testing.T) {
	k := purses(8)
	long := make([]byte, 20<<10)
	k.Behave = func(purse) entity.Behavior[purse, coin] {
		return func(c *entity.Context[purse, coin]) {
			c.Commit(coin{1})
			c.Reply(text{string(long)})
		}
	}
	k.Types.Add("text", text{})
	p := newPair(t, k)
	_, err := p.at(0, "r", "give", give{1})
	require.Equal(t, fault.TooLarge, fault.KindOf(err))
	res, err := p.at(0, "", "give", give{1})
	require.NoError(t, err)
	require.EqualValues(t, 1, res.Version, "what was refused is not there")
}

type text struct {
	S string `json:"s"`
}
