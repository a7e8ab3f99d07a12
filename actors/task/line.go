package task

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Line says which line of which batch a task is.
type Line struct {
	Batch    string `json:"batch"`
	Number   uint64 `json:"number"` // of the input's line, from 0
	CustomID string `json:"custom_id"`
	Model    string `json:"model,omitempty"`
}

func (l *Line) same(o *Line) bool { return l == o || l != nil && o != nil && *l == *o }

// validate keeps out what would not come back from the journal as it went in: a line's size is counted once.
func (l *Line) validate() error {
	if l == nil {
		return nil
	}
	if l.Batch == "" || bytes.IndexByte([]byte(l.Batch), 0) >= 0 || !utf8.ValidString(l.Batch) || !utf8.ValidString(l.CustomID) || !utf8.ValidString(l.Model) {
		return fault.New(fault.Invalid, "task.validate", "line", "needs a batch, and UTF-8 without a zero byte")
	}
	return nil
}

// Validate checks what needs nothing but the message itself.
func (m *Submit) Validate() error {
	if err := m.Spec.Validate(); err != nil {
		return err
	}
	return m.Line.validate()
}

// The rows of a batch's lines, put in the commit that makes their task final:
//
//	line     batch 0 number                in the input's order
//	lineend  batch 0 ended number          as they ended
const (
	IndexLine    = "line"
	IndexLineEnd = "lineend"
)

// LinePrefix starts all keys of a batch, in both indexes.
func LinePrefix(batch string) []byte { return append([]byte(batch), 0) }

// LineKey is a key of IndexLine.
func LineKey(batch string, number uint64) []byte {
	return binary.BigEndian.AppendUint64(LinePrefix(batch), number)
}

// ParseLineKey is the inverse of LineKey.
func ParseLineKey(key []byte) (batch string, number uint64, ok bool) {
	batch, rest, ok := cutLine(key, 8)
	if !ok {
		return "", 0, false
	}
	return batch, binary.BigEndian.Uint64(rest), true
}

// LineEndKey is a key of IndexLineEnd.
func LineEndKey(batch string, ended time.Time, number uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(LinePrefix(batch), uint64(ended.UnixMicro())), number)
}

// ParseLineEndKey is the inverse of LineEndKey.
func ParseLineEndKey(key []byte) (batch string, ended time.Time, number uint64, ok bool) {
	batch, rest, ok := cutLine(key, 16)
	if !ok {
		return "", time.Time{}, 0, false
	}
	return batch, time.UnixMicro(int64(binary.BigEndian.Uint64(rest))), binary.BigEndian.Uint64(rest[8:]), true
}

func cutLine(key []byte, after int) (batch string, rest []byte, ok bool) {
	i := bytes.IndexByte(key, 0)
	if i <= 0 || len(key) != i+1+after {
		return "", nil, false
	}
	return string(key[:i]), key[i+1:], true
}

// LineRow is the value of a row in both indexes.
type LineRow struct {
	Failed       bool // it goes into the error file
	Size         int  // bytes of its rendered line, the newline among them
	PromptTokens int
	OutputTokens int
}

const lineFailed = 1 // bit of a row's first byte

// Encode makes the row's value: a byte of flags, then numbers.
func (r LineRow) Encode() []byte {
	b := []byte{0}
	if r.Failed {
		b[0] = lineFailed
	}
	for _, n := range []int{r.Size, r.PromptTokens, r.OutputTokens} {
		b = binary.AppendUvarint(b, uint64(max(0, n)))
	}
	return b
}

// ParseLineRow is the inverse of Encode. What follows the known numbers is a newer program's.
func ParseLineRow(b []byte) (r LineRow, ok bool) {
	if len(b) == 0 {
		return r, false
	}
	r.Failed = b[0]&lineFailed != 0
	b = b[1:]
	for _, n := range []*int{&r.Size, &r.PromptTokens, &r.OutputTokens} {
		v, used := binary.Uvarint(b)
		if used <= 0 || v > math.MaxInt {
			return LineRow{}, false
		}
		*n, b = int(v), b[used:]
	}
	return r, true
}

// lineRows are the rows that a task with a Line gets when it becomes final.
func (r *Record) lineRows(id string) []persistence.Index {
	row := LineRow{Failed: r.State != Completed, Size: len(r.AppendLine(nil, id))}
	for _, a := range r.Answers {
		row.PromptTokens += a.PromptTokens
		row.OutputTokens += a.OutputTokens
	}
	value := row.Encode()
	return []persistence.Index{
		{Name: IndexLine, Key: LineKey(r.Line.Batch, r.Line.Number), Value: value},
		{Name: IndexLineEnd, Key: LineEndKey(r.Line.Batch, r.EndedAt, r.Line.Number), Value: value},
	}
}

// Codes of lines without an answer, as OpenAI names them; of other errors it is the fault's kind.
const (
	CodeBatchExpired   = "batch_expired"
	CodeBatchCancelled = "batch_cancelled"
	CodeRequestTimeout = "request_timeout"
)

// AppendLine renders a final task as a line of a batch's output file (completed) or of its error file. It reads
// nothing that a callback's later facts change, and is the same whether r was read back or not: LineRow.Size counts it.
func (r *Record) AppendLine(b []byte, id string) []byte {
	id = tenant.Bare(id)
	sum := sha256.Sum256([]byte(id))
	ref := hex.EncodeToString(sum[:16])
	b = append(append(b, `{"id":"batch_req_`...), ref...)
	b = append(b, `","custom_id":`...)
	if r.Line != nil {
		b = appendText(b, r.Line.CustomID)
	} else {
		b = appendText(b, id)
	}
	status, body := r.lineResponse(id)
	if body == nil {
		code, message := r.lineError()
		b = append(b, `,"response":null,"error":{"code":`...)
		b = append(appendText(b, code), `,"message":`...)
		b = appendText(b, message)
		return append(b, "}}\n"...)
	}
	b = append(b, `,"response":{"status_code":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(b, `,"request_id":"req_`...), ref...)
	b = append(b, `","body":`...)
	b = appendCompact(b, body)
	return append(b, "},\"error\":null}\n"...)
}

// lineResponse is the HTTP answer of a line: the engine's, or a task's own; nil where there is none.
func (r *Record) lineResponse(id string) (status int, body []byte) {
	switch {
	case r.State == Failed && r.Error != nil && r.Error.Status != 0 && !r.expired():
		return r.Error.Status, r.Error.Body
	case r.State != Completed || len(r.Answers) == 0:
		return 0, nil
	}
	if last := &r.Answers[len(r.Answers)-1]; len(last.Body) > 0 {
		return last.Status, last.Body
	}
	b := append([]byte(`{"object":"task","task_id":`), appendText(nil, id)...)
	b = append(appendText(append(b, `,"text":`...), r.Text()), `,"answers":[`...)
	for i, a := range r.Answers {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"text":`...), a.Text)
		b = appendText(append(b, `,"finish_reason":`...), a.FinishReason)
		b = appendText(append(b, `,"model":`...), a.Model)
		b = append(b, `,"usage":`...)
		b = append(appendUsage(b, a.PromptTokens, a.OutputTokens), '}')
	}
	return 200, append(b, "]}"...)
}

func appendUsage(b []byte, prompt, output int) []byte {
	b = strconv.AppendInt(append(b, `{"prompt_tokens":`...), int64(prompt), 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), int64(output), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(prompt+output), 10)
	return append(b, '}')
}

// expired tells whether a failed task ran into its deadline: up to then the task fails for reasons of its own, from
// then on only as expired.
func (r *Record) expired() bool {
	d := r.Spec.Deadline
	return r.State == Failed && d != nil && !d.After(r.EndedAt)
}

func (r *Record) lineError() (code, message string) {
	switch {
	case r.State == Cancelled:
		return CodeBatchCancelled, "This request was cancelled before it had an answer."
	case r.Error == nil:
		return fault.Unknown.String(), "The task has no answer."
	case r.expired():
		return CodeBatchExpired, "This request could not be executed before the completion window expired."
	case r.Error.Kind == fault.Timeout.String():
		return CodeRequestTimeout, r.Error.Message
	}
	return r.Error.Kind, r.Error.Message
}

// appendText writes a JSON string. Bytes that are no UTF-8 become U+FFFD itself, not its escape: so they come back
// from a journal too.
func appendText(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	buf := bytes.NewBuffer(b)
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return buf.Bytes()[:buf.Len()-1]
}

// appendCompact writes a JSON value on one line.
func appendCompact(b []byte, value []byte) []byte {
	buf := bytes.NewBuffer(b)
	if json.Compact(buf, value) != nil { // it came out of a decoder, so it is valid
		return append(b, "null"...)
	}
	return buf.Bytes()
}
