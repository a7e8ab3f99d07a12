package bulk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a batch as a client asks for it.
const (
	WindowMin    = time.Second
	WindowMax    = 365 * 24 * time.Hour
	ListMax      = 100
	metaMax      = 16
	metaKeyMax   = 64  // characters
	metaValueMax = 512 // characters
)

// ParseWindow reads a completion window: "24h" as OpenAI has it, or another duration, also in days.
func ParseWindow(s string) (time.Duration, error) {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		if n, err = strconv.ParseUint(days, 10, 16); err == nil {
			d = time.Duration(n) * 24 * time.Hour
		}
	} else {
		d, err = time.ParseDuration(s)
	}
	if err != nil || d < WindowMin || d > WindowMax {
		return 0, fault.New(fault.Invalid, "bulk.create", "completion_window", "is %.40q: use \"24h\", or another duration from 1s to 365d", s)
	}
	return d, nil
}

// Validate checks what needs nothing but the Header itself, and fills in what follows from it.
func (h *Header) Validate() (err error) {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Invalid, "bulk.create", field, format, args...)
	}
	switch {
	case h.InputFile == "":
		return bad("input_file_id", "is missing")
	case h.Endpoint == "":
		return bad("endpoint", "is missing")
	case h.Window == "":
		return bad("completion_window", "is missing")
	case len(h.Metadata) > metaMax:
		return bad("metadata", "has %d pairs, the limit is %d", len(h.Metadata), metaMax)
	case h.OutputExpires != 0 && (h.OutputExpires < file.ExpiresMin || h.OutputExpires > file.ExpiresMax):
		return bad("output_expires_after.seconds", "is %d: use %d to %d", int64(h.OutputExpires.Seconds()), int64(file.ExpiresMin.Seconds()), int64(file.ExpiresMax.Seconds()))
	case h.Priority != nil && !h.Priority.Valid():
		return h.Priority.Check()
	}
	for k, v := range h.Metadata {
		if k == "" || len([]rune(k)) > metaKeyMax || len([]rune(v)) > metaValueMax {
			return bad("metadata", "has the key %.20q: keys have 1 to %d characters, values at most %d", k, metaKeyMax, metaValueMax)
		}
	}
	if h.CallbackURL != "" {
		if err := (&task.Spec{Prompt: "x", CallbackURL: h.CallbackURL}).Validate(); err != nil {
			return err
		}
	}
	h.Within, err = ParseWindow(h.Window)
	return err
}

// Create makes a batch of a header that is valid, whose endpoint is served. The same again is harmless, another one under the same id a
// Conflict. Its input is judged later.
func (b *Batches) Create(ctx context.Context, id string, h *Header) (State, error) {
	in, err := b.o.Files.Get(ctx, h.InputFile)
	if err != nil {
		return State{}, err
	}
	if in.Purpose != file.PurposeBatch {
		return State{}, fault.New(fault.Invalid, "bulk.create", "input_file_id", "has purpose %q: upload it with purpose %q", in.Purpose, file.PurposeBatch)
	}
	if err := b.o.served(ctx, h.Endpoint, ""); err != nil {
		return State{}, err
	}
	m := Create{Header: h}
	s, w, err := b.kind.First(id, m, b.o.Now)
	if err != nil {
		return State{}, err
	}
	err = b.o.Router.Create(ctx, []persistence.Write{w})[0]
	if fault.KindOf(err) == fault.Conflict {
		return state(b.o.Router.Ask(ctx, Key(id), m))
	}
	return s, err
}

// Get folds the batch's journal; it wakes nothing.
func (b *Batches) Get(ctx context.Context, id string) (State, error) {
	if id == "" || len(id) > persistence.KeyMax {
		return State{}, noSuch(id)
	}
	s, seq, err := b.kind.Load(cluster.Reader{Context: ctx, Router: b.o.Router}, id)
	if err == nil && seq == 0 {
		err = noSuch(id)
	}
	return s, err
}

// Item is a batch in a list.
type Item struct {
	ID    string
	State State
}

// List returns batches of the tenant that ctx is for, the newest first, after one of them, and whether more follow.
func (b *Batches) List(ctx context.Context, after string, limit int) (page []Item, more bool, err error) {
	if limit < 1 || limit > ListMax {
		return nil, false, fault.New(fault.Invalid, "bulk.list", "limit", "is %d: use 1 to %d", limit, ListMax)
	}
	var last []byte
	if after != "" {
		s, err := b.Get(ctx, after)
		if fault.KindOf(err) == fault.NotFound {
			return nil, false, fault.New(fault.Invalid, "bulk.list", "after", "is no batch: %.100q", after)
		}
		if err != nil {
			return nil, false, err
		}
		last = task.AllKey(s.CreatedAt, after)
	}
	ids, more, err := task.NewestIDs(last, limit, func(from []byte, n int) ([]cluster.IndexRow, error) {
		return b.o.Router.Newest(ctx, tenant.Index(IndexAll, tenant.From(ctx)), from, n, nil)
	})
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		s, err := b.Get(ctx, id)
		if err != nil {
			return nil, false, err
		}
		page = append(page, Item{id, s})
	}
	return page, more, nil
}

// Say sends a batch Cancel, Pause or Prioritize.
func (b *Batches) Say(ctx context.Context, id string, msg any) (State, error) {
	if id == "" || len(id) > persistence.KeyMax {
		return State{}, noSuch(id)
	}
	return state(b.o.Router.Ask(ctx, Key(id), msg))
}

// Watch returns a channel that gets a value after each change of a batch, and a function that ends it.
func (b *Batches) Watch(id string) (<-chan struct{}, func()) { return b.o.Router.Watch(Key(id)) }

// Used returns a batch that is not final and has a file as its input, "" when there is none.
func (b *Batches) Used(ctx context.Context, file string) (string, error) {
	from := inputKey(file, "")
	to := append(bytes.Clone(from[:len(from)-1]), 1)
	for shard := range b.o.Router.Shards() {
		page, err := b.o.Router.Scan(ctx, shard, IndexInput, from, to, 1)
		if err != nil {
			return "", err
		}
		if len(page.Rows) > 0 {
			return string(page.Rows[0].Key[len(from):]), nil
		}
	}
	return "", nil
}

// Again is what a retry may want otherwise than the batch that it repeats: what is empty stays as it was.
type Again struct {
	Window   string
	Priority *task.Priority
}

// Retry makes a batch of the lines of a final one that did not complete. Its input is a new file with those lines.
func (b *Batches) Retry(ctx context.Context, id, of string, again Again) (State, error) {
	if s, err := b.Get(ctx, id); err == nil && s.Header.RetryOf == of {
		return s, nil // asked for again, under the same idempotency key
	}
	old, err := b.Get(ctx, of)
	if err != nil {
		return State{}, err
	}
	total, completed, _ := old.Counts()
	switch {
	case !old.Phase.Final():
		return State{}, fault.New(fault.Conflict, "bulk.retry", of, "a batch with status %q cannot be tried again", old.Phase.Status()).WithRemedy("wait until it has ended, or cancel it")
	case total == 0:
		return State{}, fault.New(fault.Invalid, "bulk.retry", "", "the input was refused: the batch never had a line: %s", of).WithRemedy("upload a corrected file, and make a batch of it")
	case total == completed:
		return State{}, fault.New(fault.Invalid, "bulk.retry", "", "the batch has no line that failed: %s", of)
	}
	in, err := b.o.Files.Get(ctx, old.Header.InputFile)
	if err != nil {
		return State{}, err
	}
	h := *old.Header
	h.RetryOf = of
	if again.Window != "" {
		h.Window = again.Window
	}
	if again.Priority != nil {
		h.Priority = again.Priority
	}
	if err := h.Validate(); err != nil { // before a file is made of it
		return State{}, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(b.copyFailed(ctx, w, of, &old)) }()
	defer r.Close() // which ends the copying
	made, err := b.o.Files.Put(ctx, file.PutOptions{Filename: "retry-" + in.Filename, Purpose: file.PurposeBatch}, r)
	if err != nil {
		return State{}, err
	}
	h.InputFile = made.ID
	return b.Create(ctx, id, &h)
}

// copyFailed writes the lines of the input that did not complete.
func (b *Batches) copyFailed(ctx context.Context, w io.Writer, id string, s *State) error {
	in, _, err := b.o.Files.Open(ctx, s.Header.InputFile, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	done, err := b.OpenOutput(ctx, id, PartOutput, 0) // for its rows, which come in order
	if err != nil {
		return err
	}
	defer done.Close()
	rows := done.(*output)
	row, err := rows.next()
	for l := newLines(in, 0, 0, LineMax); err == nil && l.number < s.Total; {
		number := l.number
		var line []byte
		if line, err = l.next(); err != nil {
			return err
		}
		for err == nil && row != nil && (row.number < number) {
			row, err = rows.next()
		}
		if err == nil && (row == nil || row.number != number || row.Failed) {
			_, err = w.Write(append(line, '\n'))
		}
	}
	if errors.Is(err, io.EOF) {
		err = fault.New(fault.Corrupt, "bulk.retry", s.Header.InputFile, "is shorter than it was")
	}
	return err
}
