package bulk

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	outputLines = 256     // rendered together
	outputBytes = 1 << 20 // of them, as far as they are more than one
	outputRows  = 16384   // of the index, of all shards together, in memory
	rowsMin     = 16      // of one shard
)

// LineID is the id of the task of a line, which is numbered from 0.
func LineID(batch string, number uint64) string {
	return batch + "-" + strconv.FormatUint(number, 10)
}

// output reads a part of a batch: its lines in the order of the input, each rendered from its task. What a batch that is not final
// gives is what has ended when it is read.
type output struct {
	b      *Batches
	ctx    context.Context
	cancel context.CancelFunc
	id     string
	s      State
	failed bool
	shards []*shardLines
	skip   int64 // bytes that are not wanted yet
	buf    []byte
	rest   *restLines // nil: not begun
	done   bool
}

// shardLines is the rows of one shard, read ahead.
type shardLines struct {
	shard int
	rows  []lineRow
	from  []byte
	ended bool
}

type lineRow struct {
	number uint64
	shard  int
	task.LineRow
}

// OpenOutput reads a part of a batch from an offset.
func (b *Batches) OpenOutput(ctx context.Context, batch, part string, offset int64) (io.ReadCloser, error) {
	s, err := b.Get(ctx, batch)
	if err != nil {
		return nil, err
	}
	o := &output{b: b, id: batch, s: s, failed: part == PartErrors, skip: offset}
	o.ctx, o.cancel = context.WithCancel(ctx)
	for n := range b.o.Router.Shards() {
		o.shards = append(o.shards, &shardLines{shard: n, from: task.LinePrefix(batch)})
	}
	return o, nil
}

// OutputBytes tells how long a part is as far as it is counted.
func (b *Batches) OutputBytes(ctx context.Context, batch, part string) (int64, error) {
	s, err := b.Get(ctx, batch)
	return s.Bytes(part), err
}

// Read renders more lines when there are none left.
func (o *output) Read(p []byte) (int, error) {
	for len(o.buf) == 0 {
		if o.done {
			return 0, io.EOF
		}
		if err := o.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.buf)
	o.buf = o.buf[n:]
	return n, nil
}

// Close ends it.
func (o *output) Close() error {
	o.cancel()
	if o.rest != nil {
		o.rest.close()
	}
	return nil
}

func (o *output) more() error {
	rows, err := o.take()
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		return o.render(rows)
	}
	if !o.failed || o.s.Rest.Bytes == 0 {
		o.done = true
		return nil
	}
	if o.rest == nil {
		if o.rest, err = o.b.o.openRest(o.ctx, o.id, &o.s); err != nil {
			return err
		}
	}
	b, err := o.rest.line()
	if err != nil {
		return err
	}
	o.done = b == nil
	cut := min(o.skip, int64(len(b)))
	o.skip -= cut
	o.buf = b[cut:]
	return nil
}

// take returns the next rows that are wanted.
func (o *output) take() (rows []lineRow, err error) {
	for size := 0; len(rows) < outputLines && (size < outputBytes || len(rows) == 0); {
		r, err := o.next()
		if err != nil || r == nil {
			return rows, err
		}
		switch {
		case r.Failed != o.failed:
		case len(rows) == 0 && int64(r.Size) <= o.skip:
			o.skip -= int64(r.Size)
		default:
			size += r.Size
			rows = append(rows, *r)
		}
	}
	return rows, nil
}

// next is the row with the least number of all shards.
func (o *output) next() (*lineRow, error) {
	var best *shardLines
	for _, s := range o.shards {
		if err := o.fill(s); err != nil {
			return nil, err
		}
		if len(s.rows) > 0 && (best == nil || s.rows[0].number < best.rows[0].number) {
			best = s
		}
	}
	if best == nil {
		return nil, nil
	}
	r := &best.rows[0]
	best.rows = best.rows[1:]
	return r, nil
}

func (o *output) fill(s *shardLines) error {
	for len(s.rows) == 0 && !s.ended {
		page, err := o.b.o.Router.Scan(o.ctx, s.shard, task.IndexLine, s.from, beyond(o.id), max(rowsMin, outputRows/len(o.shards)))
		if err != nil {
			return err
		}
		for _, row := range page.Rows {
			_, number, ok := task.ParseLineKey(row.Key)
			v, ok2 := task.ParseLineRow(row.Value)
			if !ok || !ok2 {
				return fault.New(fault.Corrupt, "bulk.output", o.id, "a row of index %s does not decode", task.IndexLine)
			}
			s.rows = append(s.rows, lineRow{number, s.shard, v})
			s.from = append(row.Key, 0)
		}
		s.ended = page.Ended || len(page.Rows) == 0
	}
	return nil
}

// render reads the tasks of some rows, of each shard together, and appends their lines.
func (o *output) render(rows []lineRow) error {
	byShard := map[int][]int{}
	for i, r := range rows {
		byShard[r.shard] = append(byShard[r.shard], i)
	}
	recs := make([]task.Record, len(rows))
	var wg sync.WaitGroup
	errs := make([]error, len(o.shards))
	for shard, at := range byShard {
		wg.Go(func() { errs[shard] = o.load(shard, at, rows, recs) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	buf := make([]byte, 0, outputBytes/4)
	for i := range rows {
		buf = recs[i].AppendLine(buf, LineID(o.id, rows[i].number))
	}
	cut := min(o.skip, int64(len(buf)))
	o.skip -= cut
	o.buf = buf[cut:]
	return nil
}

func (o *output) load(shard int, at []int, rows []lineRow, recs []task.Record) error {
	for len(at) > 0 {
		keys := make([]persistence.Key, len(at))
		for i, x := range at {
			keys[i] = task.Key(LineID(o.id, rows[x].number))
		}
		logs, err := o.b.o.Router.ReadAll(o.ctx, shard, keys)
		if err != nil {
			return err
		}
		for i, l := range logs {
			if recs[at[i]], _, err = o.b.o.Tasks.Fold(keys[i].ID, l); err != nil {
				return err
			}
		}
		at = at[len(logs):]
	}
	return nil
}

// restLines renders the lines that were never created, from the input.
type restLines struct {
	id    string
	s     *State
	r     io.ReadCloser
	in    *lines
	total uint64
}

func (o *Options) openRest(ctx context.Context, id string, s *State) (*restLines, error) {
	r, _, err := o.Files.Open(ctx, s.Header.InputFile, s.Offset)
	if err != nil {
		return nil, err
	}
	return &restLines{id: id, s: s, r: r, in: newLines(r, s.Offset, s.Reach, LineMax)}, nil
}

// line returns the next of them, nil after the last.
func (l *restLines) line() ([]byte, error) {
	number := l.in.number
	if number >= l.s.Total {
		return nil, nil
	}
	b, err := l.in.next()
	if errors.Is(err, io.EOF) || errors.Is(err, errLineLong) {
		err = fault.New(fault.Corrupt, "bulk.output", l.s.Header.InputFile, "line %d is not what it was: %w", number+1, err)
	}
	if err != nil {
		return nil, err
	}
	in, p := decode(b, l.s.Header.Endpoint)
	if p != nil {
		return nil, fault.New(fault.Corrupt, "bulk.output", l.s.Header.InputFile, "line %d is not what it was: %s", number+1, p.Message)
	}
	return never(l.s, l.id, number, in.CustomID), nil
}

func (l *restLines) close() { _ = l.r.Close() } // it was read only

// never renders a line that was never a task, as if it had been one that ended without an answer.
func never(s *State, batch string, number uint64, customID string) []byte {
	r := task.Record{State: task.Cancelled, Line: &task.Line{Batch: batch, Number: number, CustomID: customID}, Spec: &task.Spec{}}
	if s.CancelledAt.IsZero() {
		r.State, r.Spec.Deadline, r.EndedAt = task.Failed, &s.ExpiresAt, s.ExpiresAt
		r.Error = &task.Failure{Kind: fault.Timeout.String()}
	}
	return r.AppendLine(nil, LineID(batch, number))
}
