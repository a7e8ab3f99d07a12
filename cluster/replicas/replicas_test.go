package replicas

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// fake notes what it is asked for.
type fake struct {
	*persisttest.Store
	groups []persistence.Group
	did    []string
	err    error
}

func (f *fake) Groups() []persistence.Group { return f.groups }
func (f *fake) Change(_ context.Context, shard int, c persistence.Change) error {
	f.did = append(f.did, fmt.Sprintf("change %d version %d add %v remove %d", shard, c.Version, c.Add, c.Remove))
	return f.err
}
func (f *fake) Join(_ context.Context, shard int, r uint64) error {
	f.did = append(f.did, fmt.Sprintf("join %d %d", shard, r))
	return f.err
}
func (f *fake) Drop(_ context.Context, shard int) error {
	f.did = append(f.did, fmt.Sprintf("drop %d", shard))
	return f.err
}
func (f *fake) Transfer(_ context.Context, shard int, to uint64) error {
	f.did = append(f.did, fmt.Sprintf("transfer %d %d", shard, to))
	return f.err
}

func TestAgent(t *testing.T) {
	groups := []persistence.Group{{Shard: 0, Self: 7, Leader: 7}, {Shard: 1, Self: 3, Leader: 9}, {Shard: 2}}
	var none fault.Kind
	for _, c := range []struct {
		op, body string
		want     fault.Kind
		did      string
	}{
		{OpChange, `{"epoch":5,"shard":1,"change":{"version":4,"remove":2}}`, none, "change 1 version 4 add <nil> remove 2"},
		{OpChange, `{"epoch":5,"shard":1,"change":{"version":4}}`, fault.Invalid, ""},
		{OpChange, `{"epoch":5,"shard":1,"change":{"version":4,"remove":2,"add":{"id":3,"node":"x"}}}`, fault.Invalid, ""},
		{OpChange, `{"epoch":5,"shard":1}`, fault.Invalid, ""},
		{OpJoin, `{"epoch":5,"shard":2,"replica":4}`, none, "join 2 4"},
		{OpJoin, `{"epoch":5,"shard":2}`, fault.Invalid, ""},
		{OpDrop, `{"epoch":5,"shard":1,"replica":3}`, none, "drop 1"},
		{OpDrop, `{"epoch":5,"shard":2,"replica":3}`, none, "drop 2"}, // a repeat
		{OpDrop, `{"epoch":5,"shard":1,"replica":4}`, fault.Conflict, ""},
		{OpDrop, `{"epoch":5,"shard":0,"replica":7}`, fault.Refused, ""},
		{OpTransfer, `{"epoch":5,"shard":0,"replica":9}`, none, "transfer 0 9"},
		{OpTransfer, `{"epoch":4,"shard":0,"replica":9}`, fault.Fenced, ""},
		{OpDrop, `{"epoch":4,"shard":1,"replica":3}`, fault.Fenced, ""},
		{OpTransfer, `{"epoch":6,"shard":0,"replica":9,"later":true}`, none, "transfer 0 9"},
		{OpTransfer, `{"epoch":6,"shard":4,"replica":9}`, fault.Invalid, ""},
		{OpTransfer, `{"epoch":6,"shard":-1,"replica":9}`, fault.Invalid, ""},
		{OpTransfer, `{`, fault.Invalid, ""},
	} {
		t.Run(c.op+c.body, func(t *testing.T) {
			f := &fake{Store: persisttest.NewStore(4), groups: groups}
			h := New(f).Handlers()
			_, err := h[OpJoin](t.Context(), "n1", []byte(`{"epoch":5,"shard":2,"replica":1}`)) // epoch 5 was here
			require.NoError(t, err)
			f.did = nil
			_, err = h[c.op](t.Context(), "n1", []byte(c.body))
			require.Equal(t, c.want, fault.KindOf(err), "%v", err)
			var want []string
			if c.did != "" {
				want = []string{c.did}
			}
			require.Equal(t, want, f.did)
			if c.did != "" { // the store's own fault goes to the asker as it is
				f.err = fault.New(fault.Timeout, "store", "", "slow")
				_, err = h[c.op](t.Context(), "n1", []byte(c.body))
				require.Equal(t, fault.Timeout, fault.KindOf(err))
			}
		})
	}
}

func TestReport(t *testing.T) {
	f := &fake{Store: persisttest.NewStore(4), groups: []persistence.Group{{Shard: 1, Self: 3, Replicas: []persistence.Replica{{ID: 3, Node: "x", Voter: true}}}}}
	b, err := New(f).Handlers()[OpReport](t.Context(), "anybody", nil)
	require.NoError(t, err)
	var r Report
	require.NoError(t, json.Unmarshal(b, &r))
	require.Equal(t, Report{Node: persisttest.NodeID, Shards: 4, Space: f.Space(), Groups: f.groups}, r)
	require.True(t, slices.Equal(r.Groups[0].Replicas, f.groups[0].Replicas))
}
