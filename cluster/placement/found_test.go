package placement

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// m makes a member from "name", "name!" (founded), "name-" (leaving), "name@cluster".
func m(s string) members.Member {
	x := members.Member{Cluster: "c"}
	s, x.Founded = strings.CutSuffix(s, "!")
	s, x.Leaving = strings.CutSuffix(s, "-")
	if name, cluster, ok := strings.Cut(s, "@"); ok {
		s, x.Cluster = name, cluster
	}
	x.Name, x.Node = s, "id-"+s
	return x
}

func ms(s string) (all []members.Member) {
	for _, f := range strings.Fields(s) {
		all = append(all, m(f))
	}
	return all
}

func TestFound(t *testing.T) {
	vote := func(name string, ballot uint64) Vote {
		return Vote{Cluster: "c", Name: name, Node: "id-" + name, Ballot: ballot}
	}
	for name, c := range map[string]struct {
		seen Seen // Self is a unless set
		want Move
		ask  string
	}{
		"alone, one expected":           {Seen{Members: ms("a"), Expect: 1}, Ask, "a"},
		"alone, one expected, voted":    {Seen{Members: ms("a"), Expect: 1, Vote: vote("a", 1), Granted: []string{"a"}}, Start, ""},
		"nothing expected is one":       {Seen{Members: ms("a"), Vote: vote("a", 1), Granted: []string{"a"}}, Start, ""},
		"two of three":                  {Seen{Members: ms("a b"), Expect: 3}, Await, ""},
		"the lowest of three":           {Seen{Members: ms("c a b"), Expect: 3}, Ask, "a"},
		"more than expected are asked":  {Seen{Members: ms("c a b d"), Expect: 3, Vote: vote("a", 1)}, Ask, "a b c d"},
		"own vote only":                 {Seen{Members: ms("a b c"), Expect: 3, Vote: vote("a", 1), Granted: []string{"a"}}, Ask, "b c"},
		"two of three votes":            {Seen{Members: ms("a b c"), Expect: 3, Vote: vote("a", 1), Granted: []string{"a", "b"}}, Ask, "c"},
		"all votes":                     {Seen{Members: ms("a b c"), Expect: 3, Vote: vote("a", 1), Granted: []string{"a", "b", "c"}}, Start, ""},
		"a voter left since":            {Seen{Members: ms("a b c"), Expect: 3, Vote: vote("a", 1), Granted: []string{"a", "b", "d"}}, Start, ""},
		"votes without its own":         {Seen{Members: ms("a b c"), Expect: 2, Granted: []string{"b", "c"}}, Ask, "a"},
		"votes, own for another ballot": {Seen{Members: ms("a b c"), Expect: 2, Vote: vote("a", 1), Ballot: 2, Granted: []string{"a", "b", "c"}}, Ask, "a"},
		"votes, but too few are seen":   {Seen{Members: ms("a"), Expect: 2, Vote: vote("a", 1), Granted: []string{"a", "b"}}, Await, ""},
		"not the lowest":                {Seen{Self: m("b"), Members: ms("a b c"), Expect: 3}, Await, ""},
		"was the lowest":                {Seen{Self: m("b"), Members: ms("a b c"), Expect: 3, Vote: vote("b", 1)}, Withdraw, "a c"},
		"was the lowest, few are seen":  {Seen{Self: m("b"), Members: ms("a b"), Expect: 3, Vote: vote("b", 1)}, Withdraw, "a"},
		"was, and others may not know":  {Seen{Self: m("b"), Members: ms("a b c"), Expect: 3, Ballot: 2}, Withdraw, "a c"},
		"voted for the founder":         {Seen{Self: m("b"), Members: ms("a b c"), Expect: 3, Vote: vote("a", 1)}, Await, ""},
		"itself founded":                {Seen{Self: m("a!"), Members: ms("a! b c"), Expect: 3}, Settled, ""},
		"another one founded":           {Seen{Members: ms("a b c!"), Expect: 3, Vote: vote("a", 1), Granted: []string{"a", "b", "c"}}, Settled, ""},
		"other cluster founded":         {Seen{Members: ms("a b c!@other"), Expect: 2}, Ask, "a"},
		"others do not count":           {Seen{Members: ms("a b c@other"), Expect: 3}, Await, ""},
		"leaving ones do not count":     {Seen{Members: ms("a b c-"), Expect: 3}, Await, ""},
		"leaving lowest is skipped":     {Seen{Self: m("b"), Members: ms("a- b c"), Expect: 2}, Ask, "b"},
		"not in its own list":           {Seen{Members: ms("b c"), Expect: 3, Vote: vote("a", 1)}, Ask, "a b c"},
		"no directory":                  {Seen{Self: members.Member{Name: "a", Cluster: "c"}, Members: ms("b c"), Expect: 3}, Await, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.seen.Self.Name == "" {
				c.seen.Self = m("a")
			}
			if c.seen.Ballot == 0 {
				c.seen.Ballot = 1
			}
			got := Found(c.seen)
			require.Equal(t, c.want, got.Move, "%+v", got)
			require.Equal(t, c.ask, strings.Join(got.Ask, " "))
			require.NotEmpty(t, got.Why)
		})
	}
	require.Equal(t, "unknown", Move(0).String())
	require.Equal(t, "withdraw", Withdraw.String())
}

func ballot(name string, n uint64) Ballot {
	return Ballot{Cluster: "c", Name: name, Node: "id-" + name, Number: n}
}

func TestVoter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vote.json")
	open := func() *Voter {
		v, err := OpenVoter(path, m("c"))
		require.NoError(t, err)
		return v
	}
	v := open()
	judge := func(b Ballot, seen string) Verdict {
		t.Helper()
		got, err := v.Judge(b, m("c"), ms(seen))
		require.NoError(t, err)
		require.NotEmpty(t, got.Why)
		v = open() // every answer outlives a crash
		return got
	}
	require.False(t, judge(Ballot{Cluster: "other", Name: "a", Node: "x", Number: 1}, "a b c").Granted)
	require.False(t, judge(Ballot{Cluster: "c", Name: "a", Number: 1}, "a b c").Granted, "no node id")
	require.False(t, judge(ballot("b", 1), "a b c").Granted, "a comes before it")
	require.False(t, judge(ballot("a", 1), "a b! c").Granted, "there is a cluster")
	got, err := v.Judge(ballot("a", 1), m("c!"), ms("a b c!"))
	require.NoError(t, err)
	require.False(t, got.Granted, "it belongs to one itself")
	require.NoFileExists(t, path, "nothing was promised")

	require.True(t, judge(ballot("b", 1), "b c").Granted)
	require.FileExists(t, path)
	require.True(t, judge(ballot("b", 1), "b c").Granted, "asked again")
	require.True(t, judge(ballot("b", 1), "a b c").Granted, "it keeps its word also when a lower one is seen")
	require.False(t, judge(ballot("b", 1), "a! b c").Granted, "not when there is a cluster")
	got = judge(ballot("a", 1), "a b c")
	require.False(t, got.Granted, "one vote")
	require.Equal(t, "b", got.Held.Name)
	wiped := ballot("b", 1)
	wiped.Node = "another"
	require.False(t, judge(wiped, "b c").Granted, "a wiped founder may have founded")
	void := ballot("b", 1)
	void.Void = true
	require.False(t, judge(void, "b c").Granted)
	require.False(t, judge(ballot("a", 1), "a b c").Granted, "ballot 1 stands: only those below are void")
	void.Number = 2
	require.False(t, judge(void, "b c").Granted)
	require.True(t, judge(ballot("a", 1), "a b c").Granted, "b gave up")
	require.True(t, judge(ballot("a", 3), "a b c").Granted, "a gave up and asks again")
	require.False(t, judge(ballot("a", 1), "a b c").Granted, "an old question, late")

	// A vote is for one cluster; what cannot be read is not overwritten.
	_, err = OpenVoter(path, m("c@other"))
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	for _, bad := range []string{"", "{", `{"format":2,"ballot":1}`, `{"format":1}`} {
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o600))
		_, err = OpenVoter(path, m("c"))
		require.Equal(t, fault.Corrupt, fault.KindOf(err), bad)
		require.NotEmpty(t, fault.RemedyOf(err))
	}
	_, err = OpenVoter(path, members.Member{Name: "c", Cluster: "c"})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

func TestVoterWithdraws(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vote.json")
	v, err := OpenVoter(path, m("b"))
	require.NoError(t, err)
	word, err := v.Withdraw()
	require.NoError(t, err)
	require.Equal(t, uint64(1), word.Number, "there was no candidacy: nothing was asked under ballot 1 yet")
	got, err := v.Judge(v.Candidacy(), m("b"), ms("b c"))
	require.NoError(t, err)
	require.True(t, got.Granted)
	word, err = v.Withdraw()
	require.NoError(t, err)
	require.Equal(t, Ballot{Cluster: "c", Name: "b", Node: "id-b", Number: 2, Void: true}, word)
	got, err = v.Judge(ballot("b", 1), m("b"), ms("b c"))
	require.NoError(t, err)
	require.False(t, got.Granted, "its own past")
	v, err = OpenVoter(path, m("b"))
	require.NoError(t, err)
	require.Equal(t, uint64(2), v.Candidacy().Number)
	got, err = v.Judge(ballot("a", 1), m("b"), ms("a b"))
	require.NoError(t, err)
	require.True(t, got.Granted)

	// A disk that fails promises nothing.
	require.NoError(t, os.RemoveAll(filepath.Dir(path)))
	_, err = v.Judge(Ballot{Cluster: "c", Name: "a", Node: "id-a", Number: 1, Void: true}, m("b"), ms("a b"))
	require.NoError(t, err, "nothing to write")
	_, err = v.Judge(ballot("a", 7), m("b"), ms("a b"))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	vote, _ := v.Vote()
	require.Equal(t, uint64(1), vote.Ballot, "memory is not ahead of the disk")
}

// Whatever the views, losses and crashes, two nodes never both start; and when all see all, one does.
func TestOneClusterStarts(t *testing.T) {
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		n := rapid.IntRange(1, 6).Draw(rt, "nodes")
		expect := rapid.IntRange(n/2+1, n).Draw(rt, "expect")
		dir := filepath.Join(root, fmt.Sprint(run))
		if err := os.Mkdir(dir, 0o755); err != nil {
			rt.Fatal(err)
		}
		type sim struct {
			self    members.Member
			voter   *Voter
			granted []string
			sees    []int
		}
		nodes := make([]*sim, n)
		open := func(i int) {
			s := &sim{self: m(string(rune('a' + i)))}
			if old := nodes[i]; old != nil {
				s.self.Founded, s.sees = old.self.Founded, old.sees
			}
			var err error
			if s.voter, err = OpenVoter(filepath.Join(dir, s.self.Name), s.self); err != nil {
				rt.Fatal(err)
			}
			nodes[i] = s
		}
		for i := range nodes {
			open(i)
			nodes[i].sees = []int{i}
		}
		view := func(i int) (all []members.Member) {
			for _, k := range nodes[i].sees {
				all = append(all, nodes[k].self)
			}
			return all
		}
		started := 0
		act := func(i int, lost func() bool) {
			s := nodes[i]
			vote, ballot := s.voter.Vote()
			step := Found(Seen{Self: s.self, Members: view(i), Expect: expect, Vote: vote, Ballot: ballot, Granted: s.granted})
			var b Ballot
			switch step.Move {
			case Start:
				s.self.Founded = true
				if started++; started > 1 {
					rt.Fatalf("%s starts a second cluster: %s", s.self.Name, step.Why)
				}
				return
			case Withdraw:
				var err error
				if b, err = s.voter.Withdraw(); err != nil {
					rt.Fatal(err)
				}
				s.granted = nil
			case Ask:
				b = s.voter.Candidacy()
			default:
				return
			}
			for _, name := range step.Ask {
				k := int(name[0] - 'a')
				if lost() {
					continue
				}
				got, err := nodes[k].voter.Judge(b, nodes[k].self, view(k))
				if err != nil {
					rt.Fatal(err)
				}
				if got.Granted && !lost() && !slices.Contains(s.granted, name) {
					s.granted = append(s.granted, name)
				}
			}
		}
		drawLost := func() bool { return rapid.IntRange(0, 3).Draw(rt, "lost") == 0 }
		for range rapid.IntRange(0, 40).Draw(rt, "steps") {
			i := rapid.IntRange(0, n-1).Draw(rt, "node")
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0: // its view changes, to anything
				nodes[i].sees = []int{i}
				for k := range n {
					if k != i && rapid.Bool().Draw(rt, "sees") {
						nodes[i].sees = append(nodes[i].sees, k)
					}
				}
			case 1: // it restarts
				open(i)
			default:
				act(i, drawLost)
			}
		}
		for i := range nodes { // heal
			nodes[i].sees = nil
			for k := range n {
				nodes[i].sees = append(nodes[i].sees, k)
			}
		}
		for range 6 {
			for i := range nodes {
				act(i, func() bool { return false })
			}
		}
		if started != 1 {
			rt.Fatalf("%d clusters were started", started)
		}
	})
}
