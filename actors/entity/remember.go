package entity

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// answerMax bounds the answer that is remembered with a command, in bytes: it is in the journal and in memory.
const answerMax = 16 << 10

// rememberedMark begins the rows and snapshots that remember commands. All others are as they are for a kind that
// remembers nothing, so a kind may begin, or cease, to remember at any time.
const rememberedMark = "\x00entity\x01"

// remembered is a command that was carried out, and what was answered. It is part of the row that its commit made, so
// both are durable or neither is.
type remembered struct {
	ID   string `json:"id"`
	Sum  uint64 `json:"sum,omitempty"` // of the message: the same id with another one is a conflict
	Seq  uint64 `json:"seq"`           // of the row
	Type string `json:"type,omitempty"`
	Body []byte `json:"body,omitempty"`
}

// mark puts v in front of data.
func mark(v any, data []byte) ([]byte, error) {
	head, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(rememberedMark)+binary.MaxVarintLen64+len(head)+len(data))
	b = append(b, rememberedMark...)
	b = binary.AppendUvarint(b, uint64(len(head)))
	b = append(b, head...)
	return append(b, data...), nil
}

// unmark takes off what mark put in front, into v; data without a mark stays as it is, and v too.
func unmark(b []byte, v any) (data []byte, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(rememberedMark))
	if !ok {
		return b, nil
	}
	n, size := binary.Uvarint(rest)
	if size <= 0 || n > uint64(len(rest)-size) {
		return nil, fault.New(fault.Corrupt, "entity.remember", "", "the head is cut off")
	}
	rest = rest[size:]
	if err := json.Unmarshal(rest[:n], v); err != nil {
		return nil, fault.New(fault.Corrupt, "entity.remember", "", "the head: %w", err)
	}
	return rest[n:], nil
}

// keep adds a command to those that are remembered, of which at most max stay. The list is its caller's own.
func keep(list []remembered, r remembered, max int) []remembered {
	if max <= 0 {
		return nil
	}
	if list = append(list, r); len(list) > max {
		clear(list[:len(list)-max])
		list = list[len(list)-max:]
	}
	return list
}

// recall finds what was answered to a command, or nil.
func recall(list []remembered, id string) *remembered {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

// answer is what a repeat of the command m gets.
func (r *remembered) answer(key string, m *cluster.Envelope, types *cluster.Types) (any, error) {
	if r.Sum != m.Sum {
		return nil, fault.New(fault.Conflict, "entity.remember", key, "request %s was another message", r.ID).
			WithRemedy("give each request an id of its own")
	}
	return types.Decode(r.Type, r.Body)
}

// remember makes the memory of a command whose commit will be row seq.
func (k *Kind[S, E]) remember(m *cluster.Envelope, seq uint64, answer any) (*remembered, error) {
	r := &remembered{ID: m.ID, Sum: m.Sum, Seq: seq}
	var err error
	if r.Type, r.Body, err = k.Types.Encode(answer); err != nil {
		return nil, err
	}
	if len(r.Body) > answerMax {
		return nil, fault.New(fault.TooLarge, "entity.remember", m.Key.String(), "the answer has %d bytes, over answerMax %d", len(r.Body), answerMax).
			WithRemedy("answer with less: it is remembered")
	}
	return r, nil
}
