package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/mutant"
)

// nextVersion makes of this tree a program that stands for the next version: all that a version may add, each with a sign by
// which the test sees that it was used. It is written as edits and not under a build tag, because a tag would need a hook
// at each of these places in the product, which are there for nothing else. An edit that fits no more fails the build by name.
var nextVersion = []mutant.Edit{
	{File: "cmd/autoglm/main.go", Old: `var version = "dev"`, New: `var version = "` + nextName + `"`},

	// A field of an existing letter: number 99, which no version has.
	{File: "cluster/mesh/ask.go", Old: "l.From, l.Version = m.self, m.opts.Version",
		New: "l.From, l.Version = m.self, m.opts.Version\n\tl.ProtoReflect().SetUnknown([]byte{0x98, 0x06, 0x01})"},

	// An op of nodes, which every node is asked for all the time.
	{File: "node/cluster.go", Old: "j.mesh.Complete()", New: `j.n.sys.Router.HandleNode("next.hello", func(context.Context, string, []byte) ([]byte, error) { return []byte("{}"), nil })
	j.mesh.Complete()
	j.wg.Go(func() {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-j.done:
				return
			case <-t.C:
			}
			for _, p := range j.n.sys.Router.Alive() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_, _ = j.n.sys.Router.CallNode(ctx, p.Name, "next.hello", nil)
				cancel()
			}
		}
	})`},

	// A key in what gossip carries of a member.
	{File: "cluster/members/meta.go", Old: "const metaFormat = 3", New: "const metaFormat = 4"},
	{File: "cluster/members/meta.go", Old: "`json:\"k,omitempty\"`\n", New: "`json:\"k,omitempty\"`\n\tNext     string `json:\"x,omitempty\"`\n"},
	{File: "cluster/members/meta.go", Old: "Knows: m.Knows})", New: "Knows: m.Knows, Next: \"next\"})"},

	// A message to a task, sent after each submit, and the event and field that it journals: a version that skips it loses nothing.
	{File: "actors/task/types.go", Old: "\tAdd(\"cancel\", (*Cancel)(nil)).\n", New: "\tAdd(\"cancel\", (*Cancel)(nil)).\n\tAdd(\"note\", (*Note)(nil)).\n"},
	{File: "actors/task/task.go", Old: "// Dropped answers a Done or Lost", New: "type Note struct {\n\tText string `json:\"text\"`\n}\n\n// Dropped answers a Done or Lost"},
	{File: "node/service.go", Old: "\t\t\tout[i].Version, out[i].State = 1, task.Pending\n",
		New: "\t\t\tout[i].Version, out[i].State = 1, task.Pending\n\t\t\ts.sys.Router.Tell(task.Key(msgs[i].Spec.ID), &task.Note{Text: \"next\"})\n"},
	{File: "actors/task/task.go", Old: "\tcase *Cancel:\n\t\tc.Commit(Fact{Event: CancelAsked, At: clock(c), Reason: m.Reason})\n",
		New: "\tcase *Note:\n\t\tc.Commit(Fact{Event: Noted, At: clock(c), Skip: true, Note: m.Text})\n\tcase *Cancel:\n\t\tc.Commit(Fact{Event: CancelAsked, At: clock(c), Reason: m.Reason})\n"},
	{File: "actors/task/task.go", Old: "\tcase *Claim:\n\t\tc.Refuse(fault.New(fault.Conflict, \"task.claim\", c.ID(), \"attempt %d holds it\", r.Attempt))\n",
		New: "\tcase *Note:\n\t\tc.Commit(Fact{Event: Noted, At: clock(c), Attempt: r.Attempt, Skip: true, Note: m.Text})\n\tcase *Claim:\n\t\tc.Refuse(fault.New(fault.Conflict, \"task.claim\", c.ID(), \"attempt %d holds it\", r.Attempt))\n"},
	{File: "actors/task/record.go", Old: "\tSkip    bool ", New: "\tNote string `json:\"note,omitempty\"`\n\tSkip    bool "},
	{File: "actors/task/lifecycle.go", Old: "\tnumEvents\n)", New: "\tNoted\n\tnumEvents\n)"},
	{File: "actors/task/lifecycle.go", Old: `"callback_gave_up", "retried"}`, New: `"callback_gave_up", "retried", "noted"}`},
	{File: "actors/task/lifecycle.go", Old: "\tPending: {Claimed: Running,", New: "\tPending: {Noted: Pending, Claimed: Running,"},
	{File: "actors/task/lifecycle.go", Old: "\tRunning: {StepDone: Pending,", New: "\tRunning: {Noted: Running, StepDone: Pending,"},
}

const nextName = "next"

// withNextVersion builds it.
func withNextVersion(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	began := time.Now()
	path, err := mutant.Build(t.Context(), root, "./cmd/autoglm", "", t.TempDir(), "autoglm", nextVersion...)
	require.NoError(t, err)
	t.Logf("the next version is built in %v", time.Since(began).Round(time.Second))
	return path
}
