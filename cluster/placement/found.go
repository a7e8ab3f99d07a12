package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/cluster/members"
)

// Move is what a node without a cluster does next.
type Move uint8

const (
	Await    Move = iota + 1 // too few are seen, or another one is to found: look again at the next change
	Settled                  // there is a cluster: its coordinator gives this node its replicas
	Ask                      // this node is to found: ask Step.Ask for their votes, which may be none yet
	Start                    // it has the votes: found the cluster (persistence.Store.Found)
	Withdraw                 // give the candidacy up (Voter.Withdraw), forget what was granted, tell Step.Ask of it; look again
)

var moveNames = [...]string{Await: "await", Settled: "settled", Ask: "ask", Start: "start", Withdraw: "withdraw"}

func (m Move) String() string {
	if int(m) < len(moveNames) && moveNames[m] != "" {
		return moveNames[m]
	}
	return "unknown"
}

// Vote is whom a node voted for. The zero Vote is none.
type Vote struct {
	Cluster string `json:"cluster"`
	Name    string `json:"name"`   // of the founder
	Node    string `json:"node"`   // its data directory: a wiped founder is another one
	Ballot  uint64 `json:"ballot"` // which of its candidacies
}

// Seen is what a node without a cluster knows. Self.Founded must be true as soon as its store may have
// replicas, so also while the outcome of a call to Found is unknown.
type Seen struct {
	Self    members.Member
	Members []members.Member // that live, Self included
	Expect  int              // bootstrap-expect: nodes that must agree; more than half of all that exist
	Vote    Vote             // of this node, durable
	Ballot  uint64           // of this node's candidacy
	Granted []string         // names that voted for this node under Ballot since the process started; Self if Vote says so
}

// Step is what Found decided, and why.
type Step struct {
	Move    Move
	Founder string   // lowest name seen; empty while too few are seen
	Ask     []string // names of members to ask or tell, by name; a node asks itself too
	Why     string   // for people
}

// Found decides what a node does that has no cluster.
func Found(s Seen) Step {
	if s.Self.Founded {
		return Step{Move: Settled, Why: "this node belongs to a cluster"}
	}
	peers := electorate(s)
	for _, m := range s.Members {
		if m.Founded && m.Cluster == s.Self.Cluster {
			return Step{Move: Settled, Why: fmt.Sprintf("%s belongs to a cluster", m.Name)}
		}
	}
	candidate := s.Vote.Name == s.Self.Name && s.Vote.Node == s.Self.Node && s.Vote.Ballot == s.Ballot && s.Self.Node != ""
	expect := max(s.Expect, 1)
	if len(peers) > 0 && peers[0] != s.Self.Name && (candidate || s.Ballot > 1) {
		// Also when it was given up before: those that voted for it may not have heard.
		return Step{Move: Withdraw, Founder: peers[0], Ask: without(peers, s.Self.Name), Why: fmt.Sprintf("%s comes before this node", peers[0])}
	}
	if len(peers) < expect {
		return Step{Move: Await, Why: fmt.Sprintf("%d of %d expected nodes are here: %s", len(peers), expect, strings.Join(peers, ", "))}
	}
	founder := peers[0]
	if founder != s.Self.Name {
		return Step{Move: Await, Founder: founder, Why: fmt.Sprintf("%s is to start the cluster", founder)}
	}
	if s.Self.Node == "" {
		return Step{Move: Await, Founder: founder, Why: "this node has no data directory yet"}
	}
	if !candidate { // first its own vote: a candidacy that others are asked for is one that it can give up
		return Step{Move: Ask, Founder: founder, Ask: []string{founder}, Why: "this node is to start the cluster"}
	}
	var votes int
	missing := []string{}
	for _, name := range peers {
		if slices.Contains(s.Granted, name) {
			votes++
		} else {
			missing = append(missing, name)
		}
	}
	// A vote counts wherever its voter is now: it is durable.
	for _, name := range s.Granted {
		if !slices.Contains(peers, name) {
			votes++
		}
	}
	if votes >= expect {
		return Step{Move: Start, Founder: founder, Why: fmt.Sprintf("%d of %d expected votes", votes, expect)}
	}
	return Step{Move: Ask, Founder: founder, Ask: missing, Why: fmt.Sprintf("%d of %d expected votes; missing: %s", votes, expect, strings.Join(missing, ", "))}
}

// electorate returns the names that may found and vote, in order: this cluster's, with a life ahead of them.
func electorate(s Seen) []string {
	var names []string
	for _, m := range s.Members {
		if m.Cluster == s.Self.Cluster && !m.Leaving && !m.Stopping && m.Name != s.Self.Name {
			names = append(names, m.Name)
		}
	}
	if !s.Self.Leaving {
		names = append(names, s.Self.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

// Ballot is a candidate's request for a vote, or, with Void, its word that it gave up all its candidacies below
// Number for good.
type Ballot struct {
	Cluster string `json:"cluster"`
	Name    string `json:"name"`
	Node    string `json:"node"`
	Number  uint64 `json:"number"`
	Void    bool   `json:"void,omitempty"`
}

// Verdict is a voter's answer.
type Verdict struct {
	Granted bool   `json:"granted"`
	Why     string `json:"why"`            // for people
	Held    *Vote  `json:"held,omitempty"` // the vote that it is bound by
}

// judge decides on a ballot: what the voter's vote is then, and what it answers.
func judge(s Seen, b Ballot) (Vote, Verdict) {
	held := s.Vote
	no := func(format string, args ...any) (Vote, Verdict) {
		v := Verdict{Why: fmt.Sprintf(format, args...)}
		if held != (Vote{}) {
			v.Held = &held
		}
		return held, v
	}
	mine := held.Cluster == b.Cluster && held.Name == b.Name && held.Node == b.Node
	if b.Cluster != s.Self.Cluster {
		return no("this node is for cluster %q", s.Self.Cluster)
	}
	if b.Name == "" || b.Node == "" {
		return no("the ballot names no founder")
	}
	if b.Void || mine && b.Number > held.Ballot { // it gave the older candidacy up, or it would not ask under a newer one
		if mine && held.Ballot < b.Number {
			held = Vote{}
		}
		if b.Void {
			return no("given up")
		}
	}
	if s.Self.Founded {
		return no("this node belongs to a cluster")
	}
	for _, m := range s.Members {
		if m.Founded && m.Cluster == s.Self.Cluster {
			return no("%s belongs to a cluster", m.Name)
		}
	}
	want := Vote{Cluster: b.Cluster, Name: b.Name, Node: b.Node, Ballot: b.Number}
	switch {
	case held == want:
		return want, Verdict{Granted: true, Why: "voted for it already", Held: &want}
	case held != (Vote{}):
		return no("voted for %s (node %s, ballot %d)", held.Name, held.Node, held.Ballot)
	}
	if names := electorate(s); len(names) > 0 && names[0] < b.Name {
		return no("%s comes before it", names[0])
	}
	return want, Verdict{Granted: true, Why: "voted", Held: &want}
}
