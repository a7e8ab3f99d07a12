package coordinator

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// OpVote asks a node for its vote; see VoteHandler.
const OpVote = "cluster.vote"

const (
	bootEvery = time.Second // between two looks, where the members do not change
	voteWait  = time.Second // for one node's verdict
)

// Boot is what a node without a cluster works with. All but Log are needed.
type Boot struct {
	Voter   *placement.Voter
	Expect  int // nodes that must agree; more than half of all that exist
	Self    func() members.Member
	Members func() []members.Member
	Changed func() (<-chan struct{}, func())
	Ask     func(ctx context.Context, member, op string, in, out any) error // as in Options
	Found   func(ctx context.Context) error                                 // persistence.Store.Found, then Member.Founded
	Log     *slog.Logger
}

// Bootstrap returns when this node has founded the cluster, or sees one: then its replicas come from the coordinator.
// It goes on until then or until ctx ends. Other errors come from the vote's file, or are Conflict from Found.
func Bootstrap(ctx context.Context, b Boot) error {
	if b.Log == nil {
		b.Log = slog.New(slog.DiscardHandler)
	}
	changed, end := b.Changed()
	defer end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	f := founding{Boot: b}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		settled, again, err := f.step(ctx)
		if err != nil || settled {
			return err
		}
		if again {
			timer.Reset(0)
		} else {
			timer.Reset(bootEvery)
		}
	}
}

// founding is the state of Bootstrap.
type founding struct {
	Boot
	ballot  uint64   // that granted counts for
	granted []string // names
	started bool     // Found was called: it may have happened, so there is no way back
	said    string
	refused string // why this node's own vote was not to be had, as said last
}

// step does one move; again asks for the next one at once.
func (f *founding) step(ctx context.Context) (settled, again bool, err error) {
	vote, ballot := f.Voter.Vote()
	if ballot != f.ballot {
		f.ballot, f.granted = ballot, nil
	}
	s := placement.Found(placement.Seen{Self: f.Self(), Members: f.Members(), Expect: f.Expect, Vote: vote, Ballot: ballot, Granted: f.granted})
	if f.started {
		s.Move = placement.Start
	}
	if s.Why != f.said {
		f.Log.Info("founding: "+s.Why, "move", s.Move.String())
		f.said = s.Why
	}
	switch s.Move {
	case placement.Settled:
		return true, false, nil
	case placement.Start:
		f.started = true
		if err := f.Found(ctx); err != nil {
			if fault.KindOf(err) == fault.Conflict {
				return false, false, err
			}
			f.Log.Warn("the cluster is not founded yet", "err", err)
			return false, false, nil
		}
		return true, false, nil
	case placement.Withdraw:
		word, err := f.Voter.Withdraw()
		if err != nil {
			return false, false, err
		}
		f.ask(ctx, s.Ask, word)
		return false, false, nil
	case placement.Ask:
		ballot := f.Voter.Candidacy()
		if slices.Contains(s.Ask, f.Self().Name) {
			got, err := f.Voter.Judge(ballot, f.Self(), f.Members())
			if err == nil && !got.Granted && got.Why != f.refused {
				f.Log.Warn("founding: this node may not vote for itself", "why", got.Why)
				f.refused = got.Why
			}
			if err != nil || !got.Granted {
				return false, false, err
			}
			f.granted = append(f.granted, f.Self().Name)
			return false, true, nil
		}
		f.granted = append(f.granted, f.ask(ctx, s.Ask, ballot)...)
		return false, len(f.granted) >= f.Expect, nil
	}
	return false, false, nil
}

// ask sends a ballot to some nodes and returns those that granted it.
func (f *founding) ask(ctx context.Context, names []string, b placement.Ballot) (granted []string) {
	ctx, cancel := context.WithTimeout(ctx, voteWait)
	defer cancel()
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for _, name := range names {
		wg.Go(func() {
			var v placement.Verdict
			if err := f.Ask(ctx, name, OpVote, b, &v); err != nil {
				f.Log.Debug("no verdict", "member", name, "err", err)
				return
			}
			if !v.Granted && !b.Void {
				f.Log.Info("founding: no vote", "member", name, "why", v.Why)
			}
			mu.Lock()
			defer mu.Unlock()
			if v.Granted {
				granted = append(granted, name)
			}
		})
	}
	wg.Wait()
	return granted
}

// VoteHandler answers OpVote with this node's voter.
func VoteHandler(v *placement.Voter, self func() members.Member, seen func() []members.Member) replicas.Handler {
	return func(_ context.Context, from string, body []byte) ([]byte, error) {
		var b placement.Ballot
		if err := json.Unmarshal(body, &b); err != nil {
			return nil, fault.New(fault.Invalid, OpVote, from, "%w", err)
		}
		if b.Name != from {
			return nil, fault.New(fault.Refused, OpVote, from, "it asks for %s's vote", b.Name)
		}
		verdict, err := v.Judge(b, self(), seen())
		if err != nil {
			return nil, err
		}
		return json.Marshal(verdict)
	}
}
