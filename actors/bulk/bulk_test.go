package bulk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestABatch(t *testing.T) {
	p := newPlant(t, 8192)
	p.letGo()
	id := p.create(input(500), plain)
	output, errors := p.check(id, 500)
	require.Len(t, errors, 71)
	require.Len(t, output, 429)
	s := p.final(id)
	require.Equal(t, bulk.Completed, s.Phase)
	require.Positive(t, s.PromptTokens)

	// Any part of a file is a part of it.
	_, whole := p.read(id, bulk.PartOutput)
	for _, from := range []int64{0, 1, 150, int64(len(whole)) / 2, int64(len(whole)) - 1, int64(len(whole))} {
		r, err := p.batches.OpenOutput(context.Background(), id, bulk.PartOutput, from)
		require.NoError(t, err)
		part, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, string(whole[from:]), string(part), from)
	}
}

func TestMoreLinesThanTheWindow(t *testing.T) {
	p := newPlant(t, 50)
	p.letGo()
	p.check(p.create(input(1200), plain), 1200)
}

func TestRefusedInputs(t *testing.T) {
	p := newPlant(t, 100)
	for name, c := range map[string]struct{ in, code string }{
		"empty":   {"", "empty_file"},
		"no JSON": {line("a", "x") + "{\n", "invalid_json_line"},
		"twice":   {line("a", "x") + line("a", "x"), "duplicate_custom_id"},
		"model":   {strings.Replace(line("a", "x"), `"prompt"`, `"model":"unknown","prompt"`, 1), "model_not_found"},
	} {
		id := p.create(c.in, plain)
		s := p.final(id)
		require.Equal(t, bulk.Failed, s.Phase, name)
		require.Equal(t, c.code, s.Errors[0].Code, name)
		require.Zero(t, s.Bytes(bulk.PartOutput)+s.Bytes(bulk.PartErrors))
	}
	ctx := context.Background()
	h := &bulk.Header{InputFile: "file-nothere", Endpoint: bulk.EndpointTasks, Window: "24h"}
	_, err := p.batches.Create(ctx, bulk.NewID(), h)
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	other, err := p.files.Put(ctx, file.PutOptions{Filename: "x", Purpose: "user_data"}, strings.NewReader("x"))
	require.NoError(t, err)
	h.InputFile = other.ID
	_, err = p.batches.Create(ctx, bulk.NewID(), h)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	_, err = p.batches.Get(ctx, "batch_nothere")
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	_, err = p.batches.Say(ctx, "batch_nothere", bulk.Cancel{})
	require.Equal(t, fault.NotFound, fault.KindOf(err))
}

func TestTheSameKeyIsTheSameBatch(t *testing.T) {
	p := newPlant(t, 100)
	p.letGo()
	ctx := context.Background()
	h := &bulk.Header{InputFile: p.put(input(3)), Endpoint: bulk.EndpointTasks, Window: "24h"}
	require.NoError(t, h.Validate())
	id := bulk.IDOf("key")
	_, err := p.batches.Create(ctx, id, h)
	require.NoError(t, err)
	p.final(id)
	s, err := p.batches.Create(ctx, id, h)
	require.NoError(t, err)
	require.Equal(t, bulk.Completed, s.Phase)
	other := *h
	other.Metadata = map[string]string{"a": "b"}
	_, err = p.batches.Create(ctx, id, &other)
	require.Equal(t, fault.Conflict, fault.KindOf(err))
}

// TestCancel cancels a batch of which some lines have ended, some are under way, and some were never created.
func TestCancel(t *testing.T) {
	p := newPlant(t, 100)
	id := p.create(input(1000), plain)
	p.until(id, func(s bulk.State) bool { return s.Line >= 100 })
	ctx := context.Background()
	s, err := p.batches.Say(ctx, id, bulk.Cancel{})
	require.NoError(t, err)
	require.Equal(t, "cancelling", s.Phase.Status())
	_, err = p.batches.Say(ctx, id, bulk.Cancel{})
	require.NoError(t, err, "asked for twice")
	_, errors := p.check(id, 1000)
	s = p.final(id)
	require.Equal(t, bulk.Cancelled, s.Phase)
	require.EqualValues(t, 900, s.Rest.Lines, "no line beyond the window was created")
	require.Len(t, errors, 1000)
	for _, e := range errors {
		require.Equal(t, task.CodeBatchCancelled, e.Error.Code)
	}
	_, err = p.batches.Say(ctx, id, bulk.Cancel{})
	require.NoError(t, err, "it is what was wanted")
	for _, m := range []any{bulk.Pause{On: true}, bulk.Pause{}, bulk.Prioritize{Priority: 1}} {
		_, err = p.batches.Say(ctx, id, m)
		require.Equal(t, fault.Conflict, fault.KindOf(err))
	}
}

func TestExpiry(t *testing.T) {
	p := newPlant(t, 60)
	id := p.create(input(600), func(h *bulk.Header) { h.Window = "8s" }) // less than a second here
	_, errors := p.check(id, 600)
	s := p.final(id)
	require.Equal(t, bulk.Expired, s.Phase)
	require.Len(t, errors, 600)
	for _, e := range errors {
		require.Equal(t, task.CodeBatchExpired, e.Error.Code)
	}
	_, err := p.batches.Say(context.Background(), id, bulk.Cancel{})
	require.Equal(t, fault.Conflict, fault.KindOf(err))
}

// TestPause: what is created goes on, nothing more is created; and afterwards the batch goes on, with its new priority.
func TestPause(t *testing.T) {
	p := newPlant(t, 100)
	ctx := context.Background()
	id := p.create(input(1000), plain)
	p.until(id, func(s bulk.State) bool { return s.Line >= 100 })
	s, err := p.batches.Say(ctx, id, bulk.Pause{On: true})
	require.NoError(t, err)
	require.True(t, s.Paused)
	p.letGo()
	s = p.until(id, func(s bulk.State) bool { return s.Ended() == 100 })
	require.Equal(t, s.Line, s.Reach, "it is known that there are no more")
	require.EqualValues(t, 100, s.Line)
	_, err = p.batches.Say(ctx, id, bulk.Prioritize{Priority: 2})
	require.NoError(t, err)
	_, err = p.batches.Say(ctx, id, bulk.Pause{})
	require.NoError(t, err)
	p.check(id, 1000)
	for number, want := range map[uint64]int{99: task.PriorityDefault, 100: 2, 999: 2} {
		r, _, err := p.sys.Tasks.Load(journals{p}, bulk.LineID(id, number))
		require.NoError(t, err)
		require.Equal(t, want, r.Spec.PriorityOr(), "line %d", number)
	}
}

// TestTheInputIsGone deletes the input while lines are being created.
func TestTheInputIsGone(t *testing.T) {
	p := newPlant(t, 100)
	id := p.create(input(20_000), plain)
	s := p.until(id, func(s bulk.State) bool { return s.Line >= 100 })
	ctx := context.Background()
	require.NoError(t, p.files.Delete(ctx, s.Header.InputFile))
	p.moved() // or the lines that were read ahead would do
	p.letGo()
	s = p.final(id)
	require.Equal(t, bulk.Cancelled, s.Phase)
	require.Equal(t, "invalid_input_file", s.Errors[0].Code)
	total, completed, failed := s.Counts()
	require.EqualValues(t, 20_000, total)
	require.Equal(t, total, completed+failed)
	output, raw := p.read(id, bulk.PartOutput)
	require.EqualValues(t, completed, len(output))
	require.EqualValues(t, s.OutputBytes, len(raw))
}

func TestRetry(t *testing.T) {
	p := newPlant(t, 100)
	p.letGo()
	ctx := context.Background()
	id := p.create(input(30), plain)
	p.check(id, 30)
	next := bulk.NewID()
	s, err := p.batches.Retry(ctx, next, id, bulk.Again{})
	require.NoError(t, err)
	require.Equal(t, id, s.Header.RetryOf)
	same, err := p.batches.Retry(ctx, next, id, bulk.Again{})
	require.NoError(t, err)
	require.Equal(t, s.Header.InputFile, same.Header.InputFile)
	p.final(next)
	errors, _ := p.read(next, bulk.PartErrors)
	var ids []string
	for _, e := range errors {
		ids = append(ids, e.CustomID)
	}
	require.Equal(t, []string{"c3", "c10", "c17", "c24"}, ids)
	good := p.create(line("a", "x"), plain)
	_, err = p.batches.Retry(ctx, bulk.NewID(), good, bulk.Again{})
	if p.final(good); fault.KindOf(err) != fault.Conflict { // it may have ended already
		require.Equal(t, fault.Invalid, fault.KindOf(err))
	}
	_, err = p.batches.Retry(ctx, bulk.NewID(), good, bulk.Again{})
	require.Equal(t, fault.Invalid, fault.KindOf(err), "nothing failed")
}

func TestList(t *testing.T) {
	p := newPlant(t, 100)
	p.letGo()
	var ids []string
	for range 5 {
		ids = append(ids, p.create(line("a", "x"), plain))
	}
	var got []string
	after, pages := "", 0
	for more := true; more; pages++ {
		var page []bulk.Item
		var err error
		page, more, err = p.batches.List(context.Background(), after, 2)
		require.NoError(t, err)
		for _, x := range page {
			got = append([]string{x.ID}, got...)
			after = x.ID
		}
	}
	require.Equal(t, 3, pages)
	require.Equal(t, ids, got, "newest first")
	_, _, err := p.batches.List(context.Background(), "batch_x", 2)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	_, _, err = p.batches.List(context.Background(), "", 101)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	used, err := p.batches.Used(context.Background(), p.final(ids[0]).Header.InputFile)
	require.NoError(t, err)
	require.Empty(t, used, "it has ended")
}

func TestAnInputInUse(t *testing.T) {
	p := newPlant(t, 100)
	id := p.create(input(10), plain)
	s := p.until(id, func(s bulk.State) bool { return s.Line == 10 })
	used, err := p.batches.Used(context.Background(), s.Header.InputFile)
	require.NoError(t, err)
	require.Equal(t, id, used)
	used, err = p.batches.Used(context.Background(), s.Header.InputFile[:len(s.Header.InputFile)-1])
	require.NoError(t, err)
	require.Empty(t, used)
}

// TestWebhooks: each receiver hears of the end, under one id, and again when it did not say so.
func TestWebhooks(t *testing.T) {
	p := newPlant(t, 100)
	p.letGo()
	p.mu.Lock()
	p.down = 3
	p.mu.Unlock()
	id := p.create(line("a", "x"), func(h *bulk.Header) { h.CallbackURL = "http://mine/" })
	s := p.until(id, func(s bulk.State) bool {
		return s.Phase.Final() && len(s.Hooks) == 2 && s.Hooks[0].Done && s.Hooks[1].Done
	})
	require.Equal(t, 5, s.Hooks[0].Tries+s.Hooks[1].Tries)
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Len(t, p.posts, 2)
	require.NotEqual(t, p.posts[0].URL, p.posts[1].URL)
	for _, d := range p.posts {
		require.Equal(t, bulk.EventID(id), d.ID)
		var e map[string]any
		require.NoError(t, json.Unmarshal(d.Body, &e))
		require.Equal(t, map[string]any{"id": bulk.EventID(id), "object": "event", "created_at": float64(s.EndedAt.Unix()), "type": "batch.completed",
			"data": map[string]any{"id": id}}, e)
	}
}

// TestWebhooksAreGivenUp after the tries that there are.
func TestWebhooksAreGivenUp(t *testing.T) {
	p := newPlant(t, 100)
	p.letGo()
	p.mu.Lock()
	p.down = 1 << 20
	p.mu.Unlock()
	id := p.create("", plain)
	s := p.until(id, func(s bulk.State) bool { return s.Phase.Final() && s.Hooks[0].Done })
	require.Equal(t, bulk.Failed, s.Phase)
	require.Equal(t, 3, s.Hooks[0].Tries)
	require.NotNil(t, s.Hooks[0].Error)
}

// TestACrashAtEveryWrite makes append number n fail, or not say that it is applied, or lose all owners besides, and looks for the lines.
func TestACrashAtEveryWrite(t *testing.T) {
	const lines = 9
	story := func(t *testing.T, p *plant, cancel bool) {
		p.letGo()
		id := p.create(input(lines), plain)
		if cancel {
			for {
				_, err := p.batches.Say(context.Background(), id, bulk.Cancel{})
				if err == nil || fault.KindOf(err) == fault.Conflict {
					break
				}
				require.True(t, fault.KindOf(err).Retryable(), "%v", err)
			}
			if s := p.final(id); s.Total == 0 {
				return // it was cancelled before its lines were counted
			}
		}
		p.check(id, lines)
		p.until(id, func(s bulk.State) bool { return s.Hooks[0].Done })
	}
	calm := newPlant(t, 4)
	calm.every(false, func(int64) error { return nil })
	story(t, calm, false)
	n := calm.appends.Load()
	require.Greater(t, n, int64(10))
	t.Logf("%d appends", n)
	step, first := int64(3), int64(0) // each write is met by one of the three
	if testing.Short() {
		step = 9
	}
	for how, lose := range map[string]bool{"fails": false, "applied": true, "moved": true} {
		first++
		for i := first; i <= n; i += step {
			t.Run(fmt.Sprint(how, i), func(t *testing.T) {
				t.Parallel()
				p := newPlant(t, 4)
				p.every(lose, func(now int64) error {
					if now != i {
						return nil
					}
					if how == "fails" {
						return fault.New(fault.Unavailable, "test", "", "append %d", i)
					}
					if how == "moved" {
						p.moved()
					}
					return fault.New(fault.Timeout, "test", "", "append %d", i)
				})
				story(t, p, i%4 == 0)
			})
		}
	}
}

// TestOwnersThatComeAndGo lets the shards of a batch move again and again.
func TestOwnersThatComeAndGo(t *testing.T) {
	p := newPlant(t, 100)
	p.letGo()
	id := p.create(input(2000), plain)
	for i := range uint64(8) {
		p.until(id, func(s bulk.State) bool { return s.Phase.Final() || s.Line >= 200*i })
		p.moved()
	}
	p.check(id, 2000)
}

// TestALeftOverReportIsRefused: one that was left over by an owner before is refused, and does no harm.
func TestALeftOverReportIsRefused(t *testing.T) {
	p := newPlant(t, 100)
	id := p.create(input(10), plain)
	s := p.until(id, func(s bulk.State) bool { return s.Line == 10 })
	ctx := context.Background()
	next := s.Progress
	next.Completed++
	_, err := p.batches.Say(ctx, id, bulk.Report{Epoch: 1 << 40, From: &s.Progress, Fact: bulk.Fact{Event: bulk.Progressed, Progress: &next}})
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	epoch := uint64(1)
	for ; epoch < 10; epoch++ {
		if _, err = p.batches.Say(ctx, id, bulk.Report{Epoch: epoch, Fact: bulk.Fact{Event: bulk.Accepted, Total: 5}}); err == nil {
			break
		}
	}
	require.NoError(t, err, "of this owner: said twice, it changes nothing")
	stale := bulk.Progress{}
	_, err = p.batches.Say(ctx, id, bulk.Report{Epoch: epoch, From: &stale, Fact: bulk.Fact{Event: bulk.Progressed, Progress: &next}})
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	again, err := p.batches.Get(ctx, id)
	require.NoError(t, err)
	require.Zero(t, again.Completed)
	require.EqualValues(t, 10, again.Total)
	p.letGo()
	p.check(id, 10)
}

// journals reads for those who fold.
type journals struct{ p *plant }

func (j journals) Read(key persistence.Key, after uint64) (persistence.Log, error) {
	return j.p.sys.Router.Read(context.Background(), key, after)
}
