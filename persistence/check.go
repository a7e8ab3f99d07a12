package persistence

import "github.com/open-autoglm/autoglm/persistence/fault"

const rowCost = 96 // bytes a row costs beside its content: a node of Badger's skip list

// Size returns the bytes of w that count against WriteMax and AppendMax: its content and
// what every row costs beside it.
func (w *Write) Size() int {
	n := w.inline() + len(w.Data)
	if w.Snap != nil {
		n += len(w.Snap.State)
	}
	return n
}

// inline returns Size without the two bodies.
func (w *Write) inline() int {
	key := len(w.Key.Kind) + len(w.Key.ID) + rowCost
	n := key
	if w.Snap != nil {
		n += key
	}
	if w.Erase {
		n += int(min(w.After, EraseRows)+2) * key
	}
	for i := range w.Index {
		x := &w.Index[i]
		n += len(x.Name) + len(x.Key) + len(x.Value) + rowCost
	}
	for i := range w.Count {
		n += len(w.Count[i].Name) + rowCost
	}
	return n
}

// Check tells whether w respects every limit of one Write: nil, or a *fault.Error of
// kind Invalid or TooLarge. Every Journal answers such a Write with this error.
func (w *Write) Check() error {
	const op = "journal.check"
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, op, w.Key.String(), format, args...)
	}
	switch {
	case w.Key.Kind == "" || w.Key.ID == "":
		return bad("kind and id must not be empty")
	case len(w.Key.Kind) > KeyMax || len(w.Key.ID) > KeyMax:
		return bad("kind or id is longer than KeyMax (%d bytes)", KeyMax)
	case len(w.Data) == 0:
		return bad("a write needs data")
	case w.Erase && (w.Snap != nil || w.After == 0):
		return bad("what erases a journal follows a row of it, and makes no snapshot")
	}
	for i := range w.Index {
		x := &w.Index[i]
		if x.Name == "" || len(x.Name) > KeyMax || len(x.Key) == 0 || len(x.Key) > IndexKeyMax {
			return bad("index row %d: the name takes 1..%d bytes, the key 1..%d", i, KeyMax, IndexKeyMax)
		}
	}
	for i := range w.Count {
		if n := len(w.Count[i].Name); n == 0 || n > KeyMax {
			return bad("counter %d: the name takes 1..%d bytes", i, KeyMax)
		}
	}
	if n := w.Size(); n > WriteMax {
		return fault.New(fault.TooLarge, op, w.Key.String(), "%d bytes are more than WriteMax (%d)", n, WriteMax)
	}
	if n := w.inline(); n > AppendMax/2 {
		return fault.New(fault.TooLarge, op, w.Key.String(), "%d bytes of index rows and counters are more than half of AppendMax (%d)", n, AppendMax)
	}
	return nil
}

// CountersFault answers a Write that needs more counters than its shard has room for. What
// names a counter of its own, above all, is a queue: the tasks of one model and priority
// that wait.
func CountersFault(w *Write) error {
	const op = "journal.append"
	name, limit := "CountersMax", CountersMax
	if w.After == 0 {
		name, limit = "CountersCreateMax", CountersCreateMax
	}
	return fault.New(fault.Overloaded, op, w.Key.String(), "too many different models wait in this shard: %s (%d) counters are in use", name, limit).
		WithRemedy("try again when some of the waiting tasks are done or cancelled, and send tasks for fewer models at once")
}

// EraseFault answers a Write that has too much to erase.
func EraseFault(w *Write) error {
	return fault.New(fault.TooLarge, "journal.append", w.Key.String(), "it has more than EraseRows (%d) rows, or one over EraseBody (%d bytes), or gets a snapshot in the same Append", EraseRows, EraseBody).
		WithRemedy("let a snapshot truncate it first")
}

// CheckAppend tells whether writes may travel in one Append, as Check does for one.
func CheckAppend(writes []Write) error {
	const op = "journal.append"
	if len(writes) == 0 {
		return fault.New(fault.Invalid, op, "", "no writes")
	}
	if len(writes) > AppendCount {
		return fault.New(fault.TooLarge, op, "", "%d writes are more than AppendCount (%d)", len(writes), AppendCount)
	}
	n := 0
	for i := range writes {
		n += writes[i].Size()
	}
	if n > AppendMax && len(writes) > 1 { // one write alone is judged by Check
		return fault.New(fault.TooLarge, op, "", "%d bytes are more than AppendMax (%d)", n, AppendMax)
	}
	return nil
}
