package seal

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A value on disk is one of
//
//	anything else               → clear, as it is
//	mark │ 0 │ data             → clear, of a value that begins with the mark itself
//	mark │ 1 │ 1 │ id 4 │ SIV 16 │ data encrypted, as long as it was      (from the second 1 on, what Tink makes)
//
// Another number after the mark is a newer program's.
const (
	mark = "\x00sealed"

	methodClear = 0
	methodSIV   = 1

	overhead = len(mark) + 1 + 1 + 4 + 16 // bytes by which a sealed value is longer
)

// What a value is, in front of its associated data.
const (
	slotRow   = 'r' // kind, id, sequence
	slotSnap  = 's' // kind, id, sequence
	slotIndex = 'i' // name, key
)

// Write returns w as it may be written to disks, and whether that is another one. What w refers to stays as it is.
func (k *Keys) Write(w persistence.Write) (_ persistence.Write, changed bool, err error) {
	if k.Seals() == "" && !marked(&w) {
		return w, false, nil
	}
	ad := make([]byte, 0, 128)
	here := func(slot byte) []byte { return place(ad, slot, w.Key.Kind, w.Key.ID, w.After+1) }
	if w.Data, err = k.value(w.Data, here(slotRow)); err != nil {
		return w, false, failed(w.Key.String(), err)
	}
	if w.Snap != nil {
		snap := *w.Snap
		if snap.State, err = k.value(snap.State, here(slotSnap)); err != nil {
			return w, false, failed(w.Key.String(), err)
		}
		w.Snap = &snap
	}
	w.Index = slices.Clone(w.Index)
	for i := range w.Index {
		x := &w.Index[i]
		if x.Value, err = k.value(x.Value, indexPlace(ad, x.Name, x.Key)); err != nil {
			return w, false, failed(w.Key.String(), err)
		}
	}
	return w, true, nil
}

// marked tells whether something of a write that is clear would be taken for sealed.
func marked(w *persistence.Write) bool {
	is := func(b []byte) bool { return len(b) >= len(mark) && string(b[:len(mark)]) == mark }
	if is(w.Data) || w.Snap != nil && is(w.Snap.State) {
		return true
	}
	for i := range w.Index {
		if is(w.Index[i].Value) {
			return true
		}
	}
	return false
}

// value seals one value for its place. Where there is nothing, there is nothing to hide: an empty one stays empty.
func (k *Keys) value(b, ad []byte) ([]byte, error) {
	switch {
	case len(b) == 0:
		return b, nil
	case k.Seals() != "":
		sealed, err := k.daead.EncryptDeterministically(b, ad)
		if err != nil {
			return nil, err
		}
		return join(methodSIV, sealed), nil
	case bytes.HasPrefix(b, []byte(mark)):
		return join(methodClear, b), nil
	}
	return b, nil
}

func join(method byte, b []byte) []byte {
	return append(append(append(make([]byte, 0, len(mark)+1+len(b)), mark...), method), b...)
}

func failed(key string, err error) error {
	return &fault.Error{Op: "seal.write", Key: key, Kind: fault.Invalid, Err: err}
}

// Log opens what was read of a journal, in place.
func (k *Keys) Log(key persistence.Key, l *persistence.Log) (err error) {
	var ad [128]byte
	if l.SnapSeq > 0 {
		if l.Snap, err = k.open(l.Snap, slotSnap, key.Kind, key.ID, l.SnapSeq, ad[:0]); err != nil {
			return err
		}
	}
	for i := range l.Rows {
		r := &l.Rows[i]
		if r.Data, err = k.open(r.Data, slotRow, key.Kind, key.ID, r.Seq, ad[:0]); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keys) open(b []byte, slot byte, kind, id string, seq uint64, ad []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte(mark)) {
		return b, nil
	}
	return k.unseal(b, place(ad, slot, kind, id, seq), persistence.Key{Kind: kind, ID: id}.String())
}

// Value opens the value of an index row.
func (k *Keys) Value(index string, key, value []byte) ([]byte, error) {
	if !bytes.HasPrefix(value, []byte(mark)) {
		return value, nil
	}
	return k.unseal(value, indexPlace(nil, index, key), "index/"+index)
}

// unseal opens a value that begins with the mark. key is for the error.
func (k *Keys) unseal(b, ad []byte, key string) ([]byte, error) {
	corrupt := func(what string) error {
		return fault.New(fault.Corrupt, "seal.open", key, "%s", what).
			WithRemedy("it was changed or moved by who does not have the key, or its disk is bad: restore a backup into a new data directory; a node of a cluster may be wiped, and is filled again by the others")
	}
	rest := b[len(mark):]
	if len(rest) == 0 {
		return nil, corrupt("the value is cut off")
	}
	switch rest[0] {
	case methodClear:
		return rest[1:], nil
	case methodSIV:
	default:
		return nil, fault.New(fault.Unavailable, "seal.open", key, "the value is sealed in a way (%d) that only a newer version knows", rest[0]).WithRemedy("upgrade this node")
	}
	rest = rest[1:]
	id, ok := idOf(rest)
	switch {
	case !ok:
		return nil, corrupt("the value is cut off")
	case k == nil: // Unavailable: the bytes are good, and another node may have the key
		return nil, fault.New(fault.Unavailable, "seal.open", key, "the value is sealed with key %d, and this node was given no keys", id).WithRemedy(remedyKeys)
	case !k.ids[id]:
		return nil, fault.New(fault.Unavailable, "seal.open", key, "the value is sealed with key %d, which is not among this node's keys (%v)", id, k.prints).WithRemedy(remedyKeys)
	}
	clear, err := k.daead.DecryptDeterministically(rest, ad)
	if err != nil {
		return nil, corrupt("the value does not open with the key that it names, at the place where it is")
	}
	return clear, nil
}

// place says in bytes which value of which journal one is.
func place(b []byte, slot byte, kind, id string, seq uint64) []byte {
	b = append(b, slot)
	b = append(binary.AppendUvarint(b, uint64(len(kind))), kind...)
	b = append(binary.AppendUvarint(b, uint64(len(id))), id...)
	return binary.BigEndian.AppendUint64(b, seq)
}

func indexPlace(b []byte, name string, key []byte) []byte {
	b = append(b, slotIndex)
	b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
	return append(b, key...)
}
