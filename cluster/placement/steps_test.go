package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
)

var epoch = time.Unix(1e9, 0)

// nodes makes nodes from words: "a" lives, "a@zone", "a-" leaves, "a?" did not report, "a+20s" is dead for that long, "a=x" has the
// name x. Ids are the letters.
func nodes(words string) (all []Node) {
	for _, w := range strings.Fields(words) {
		n := Node{Alive: true, Reported: true, Since: epoch.Add(-time.Hour)}
		if head, dead, ok := strings.Cut(w, "+"); ok {
			d, err := time.ParseDuration(dead)
			if err != nil {
				panic(err)
			}
			w, n.Alive, n.Reported, n.Since = head, false, false, epoch.Add(-d)
		}
		if head, ok := strings.CutSuffix(w, "?"); ok {
			w, n.Reported = head, false
		}
		w, n.Leaving = strings.CutSuffix(w, "-")
		w, n.Zone, _ = strings.Cut(w, "@")
		n.ID, n.Name, _ = strings.Cut(w, "=")
		if n.Name == "" {
			n.Name = n.ID
		}
		all = append(all, n)
	}
	return all
}

// view makes shards from words as "a1* b2 c3? d4!": replica 1 on a leads, 3 on c learns, 4 on d is not run by its node. A
// "~" after a replica: it is behind. "x9#": node x runs replica 9, which is no member. "-": the shard has no leader.
func view(members string, shards ...string) View {
	v := View{Now: epoch, Nodes: nodes(members)}
	for i, words := range shards {
		g := persistence.Group{Shard: i, Applied: 10_000, Version: 7, Last: 9}
		runs := map[string]persistence.Group{}
		for _, w := range strings.Fields(words) {
			if w == "-" {
				continue
			}
			id, marks := w[:1], w[2:]
			r := persistence.Replica{ID: uint64(w[1] - '0'), Node: id, Voter: !strings.Contains(marks, "?")}
			local := persistence.Group{Shard: i, Self: r.ID, Applied: 9_990, Version: 7}
			if strings.Contains(marks, "~") {
				local.Applied = 10
			}
			if !strings.Contains(marks, "!") {
				runs[id] = local
			}
			if strings.Contains(marks, "*") {
				g.Leader = r.ID
			}
			if !strings.Contains(marks, "#") {
				g.Replicas = append(g.Replicas, r)
			}
		}
		for k := range v.Nodes {
			if local, ok := runs[v.Nodes[k].ID]; ok {
				local.Leader = g.Leader
				v.Nodes[k].Groups = append(v.Nodes[k].Groups, local)
			}
		}
		if words == "-" || strings.HasPrefix(words, "- ") {
			v.Groups = append(v.Groups, nil)
		} else {
			v.Groups = append(v.Groups, &g)
		}
	}
	return v
}

// TestCaughtUp: a learner is promoted when it lacks a few entries, or only those of the last moment.
func TestCaughtUp(t *testing.T) {
	behind := Defaults.Behind
	for name, c := range map[string]struct {
		applied, before uint64 // of the learner, and of the leader a moment ago; it has 10,000 now
		want            bool
	}{
		"equal":                       {10_000, 0, true},
		"ahead of an old report":      {10_100, 0, true},
		"a few":                       {10_000 - behind, 0, true},
		"one more than a few":         {10_000 - behind - 1, 0, false},
		"what the leader had before":  {9_000, 9_000, true},
		"less than the leader before": {8_999, 9_000, false},
		"a thousand, nothing before":  {9_000, 0, false},
		"empty":                       {0, 0, false},
	} {
		v := view("a b", "a1* b2?")
		v.Nodes[1].Groups[0].Applied = c.applied
		v.Before = []uint64{c.before}
		got := Plan(v)
		require.Equal(t, c.want, len(got) == 1 && got[0].Kind == Promote, "%s: %v", name, got)
	}
}

func TestSteps(t *testing.T) {
	for name, c := range map[string]struct {
		members, shard string
		want           string // kind, node and replica of each action
	}{
		"alone":                               {"a", "a1*", ""},
		"rest":                                {"a b c", "a1* b2 c3", ""},
		"grow by one":                         {"a b", "a1*", "add-learner b10"},
		"the emptiest in another zone":        {"a@x b@x c@y", "a1*", "add-learner c10"},
		"not to one that leaves":              {"a b-", "a1*", ""},
		"not to one that does not answer":     {"a b?", "a1*", ""},
		"not where an old replica is":         {"a b", "a1* b2#", "drop b2"},
		"the learner does not run":            {"a b", "a1* b2?!", "join b2"},
		"its node does not answer":            {"a b?", "a1* b2?!", ""},
		"its node has an old one":             {"a b", "a1* b2?! b5#", "drop b5"},
		"the learner is behind":               {"a b", "a1* b2?~", ""},
		"the learner has caught up":           {"a b", "a1* b2?", "promote b2"},
		"the learner died":                    {"a b+1s", "a1* b2?", ""},
		"the learner died long ago":           {"a b+30s", "a1* b2?", "remove b2"},
		"a learner too many":                  {"a b c d", "a1* b2 c3 d4?", "remove d4"},
		"a learner on one that leaves":        {"a b- c", "a1* b2?", "remove b2"},
		"dead within grace":                   {"a b c+29s d", "a1* b2 c3", ""},
		"dead beyond grace":                   {"a b c+30s d", "a1* b2 c3", "add-learner d10"},
		"dead, nobody else":                   {"a b c+30s", "a1* b2 c3", ""},
		"dead and leaving, nobody else":       {"a b c-+30s", "a1* b2 c3", "remove c3"},
		"dead, nobody else, leads are spread": {"a b- c+30s", "a1 b2* c3", "transfer a1"},
		"dead, replaced":                      {"a b c+30s d", "a1* b2 c3 d4", "remove c3"},
		"back in time, one too many":          {"a b c d", "a1* b2 c3 d4", "remove d4"},
		"wiped":                               {"a b c=c+1s d=c", "a1* b2 c3", "add-learner d10"},
		"wiped, replaced":                     {"a b c=c+1s d=c", "a1* b2 c3 d4", "remove c3"},
		"wiped, and dead since":               {"a b c=c+9s d=c+1s e", "a1* b2 c3", "add-learner e10"},
		"never seen":                          {"a b c+1s", "a1* b2 c3", ""},
		"lost by a living node":               {"a b c d", "a1* b2 c3!", "add-learner d10"},
		"leaving":                             {"a b c- d", "a1* b2 c3", "add-learner d10"},
		"leaving, not yet replaced":           {"a b c- d", "a1* b2 c3 d4?~", ""},
		"leaving, replaced":                   {"a b c- d", "a1* b2 c3 d4", "remove c3"},
		"two leave, one is replaced":          {"a b c- d- e", "a1* b2 c3 d4", "add-learner e10"},
		"one leaves, one is dead":             {"a b c- d+40s e", "a1* b2 c3 d4", "remove d4"},
		"leaving, fewer nodes than replicas":  {"a b c-", "a1* b2 c3", "remove c3"},
		"leaving, and it leads":               {"a b c-", "a1 b2 c3*", "transfer a1"},
		"leaving leader, one is behind":       {"a b c-", "a1~ b2 c3*", "transfer b2"},
		"leaving leader, all are behind":      {"a b c-", "a1~ b2~ c3*", ""},
		"all leave":                           {"a- b- c-", "a1* b2 c3", ""},
		"too many, and the leader is one":     {"a b-", "a1 b2*", "transfer a1"},
		"half is dead: no majority":           {"a b+40s c+40s d+40s", "a1* b2 c3 d4", ""},
		"a removal would end the majority":    {"a b c+40s d?", "a1* b2 c3 d4", ""},
		"nobody leads":                        {"a b", "- a1 b2", ""},
		"a replica that leads is not dropped": {"a b c d", "a1* b2 c3 d9#", "drop d9"},
		"into another zone":                   {"a@x b@x c@x d@y", "a1* b2 c3", "add-learner d10"},
		"out of the double zone":              {"a@x b@x c@z d@y", "a1* b2 c3 d4", "remove b2"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, a := range Plan(view(c.members, c.shard)) {
				got = append(got, fmt.Sprintf("%s %s%d", a.Kind, a.Node, a.Replica))
				switch a.Kind {
				case Join, Drop:
					require.Equal(t, a.Node, a.On)
					require.Zero(t, a.Version)
				case Transfer:
					require.Zero(t, a.Version)
				default:
					require.EqualValues(t, 7, a.Version)
				}
			}
			require.Equal(t, c.want, strings.Join(got, ", "))
		})
	}
}

// What the replica itself says of its group keeps it from being dropped.
func TestDropIsCareful(t *testing.T) {
	for name, f := range map[string]func(*persistence.Group){
		"it leads":                          func(g *persistence.Group) { g.Leader = g.Self },
		"its membership is newer":           func(g *persistence.Group) { g.Version = 8 },
		"its id is not known to the leader": func(g *persistence.Group) { g.Self = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			v := view("a b c d", "a1* b2 c3 d9#")
			f(&v.Nodes[3].Groups[0])
			require.Empty(t, Plan(v))
		})
	}
}

// The dead stay as long as the majority is no smaller without them.
func TestDeadVotersThatMayReturn(t *testing.T) {
	for words, want := range map[string]string{
		"a b c d e+40s":     "", // of five three, of four three
		"a b c d+40s e+40s": "remove d4",
		"a b c d+40s":       "remove d4", // of four three, of three two
		"a b c+40s":         "",
	} {
		shard := strings.Join([]string{"a1*", "b2", "c3", "d4", "e5"}[:len(strings.Fields(words))], " ")
		v := view(words, shard)
		v.Replicas = 5
		var got []string
		for _, a := range Plan(v) {
			got = append(got, fmt.Sprintf("%s %s%d", a.Kind, a.Node, a.Replica))
		}
		require.Equal(t, want, strings.Join(got, ", "), words)
	}
	// Leads are spread among the living all the same.
	got := Plan(view("a b c+40s", "a1* b2 c3", "a1* b2 c3"))
	require.Len(t, got, 1)
	require.Equal(t, Transfer, got[0].Kind)
}

func TestLeadsGoTheLongWay(t *testing.T) {
	// a leads two, c none, and no shard of a is on c: one of a's goes to b, one of b's to c.
	v := view("a b c d", "a1* b2", "a1* b2", "b1* c2", "d1* c2", "d1* c2")
	v.Replicas = 2
	var got []string
	for _, a := range Plan(v) {
		got = append(got, fmt.Sprint(a.Kind, a.Shard, a.Node))
	}
	require.Equal(t, []string{"transfer0b", "transfer2c"}, got)
}

func TestLimits(t *testing.T) {
	shards := slices.Repeat([]string{"a1*"}, 16)
	v := view("a b", shards...)
	v.ChangesMax = 3
	require.Len(t, Plan(v), 3)
	shards[15] = "a1* b2?~" // one is under way
	v = view("a b", shards...)
	v.ChangesMax = 3
	require.Len(t, Plan(v), 2)
}
