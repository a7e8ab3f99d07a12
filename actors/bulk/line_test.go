package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const good = `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}`

func TestDecode(t *testing.T) {
	chat := func(rest string) string {
		return `{"custom_id":"a","method":"POST","url":"/v1/chat/completions",` + rest + `}`
	}
	for _, c := range []struct {
		name, line, endpoint, code, param string
	}{
		{"good", good, task.EndpointChat, "", ""},
		{"spaces around", "  " + good + "\t", task.EndpointChat, "", ""},
		{"fields of tomorrow", chat(`"body":{"model":"m","top_k":4},"new":1`), task.EndpointChat, "", ""},
		{"stream false", chat(`"body":{"model":"m","stream":false}`), task.EndpointChat, "", ""},
		{"extensions", chat(`"body":{"model":"m"},"priority":0,"retry":{"attempts":2},"metadata":{"k":"v"}`), task.EndpointChat, "", ""},
		{"our own", `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"x","steps":["y"]}}`, EndpointTasks, "", ""},

		{"no JSON", `{"custom_id":`, task.EndpointChat, codeJSON, ""},
		{"two values", good + good, task.EndpointChat, codeJSON, ""},
		{"an array", `[1]`, task.EndpointChat, codeJSON, ""},
		{"null", `null`, task.EndpointChat, codeJSON, ""},
		{"no UTF-8", strings.Replace(good, `"a"`, "\"\xff\"", 1), task.EndpointChat, codeJSON, ""},
		{"a number as custom_id", strings.Replace(good, `"a"`, "1", 1), task.EndpointChat, codeJSON, ""},
		{"no custom_id", strings.Replace(good, `"custom_id":"a",`, "", 1), task.EndpointChat, codeMissing, "custom_id"},
		{"empty custom_id", strings.Replace(good, `"a"`, `""`, 1), task.EndpointChat, codeMissing, "custom_id"},
		{"long custom_id", strings.Replace(good, `"a"`, `"`+strings.Repeat("x", CustomIDMax+1)+`"`, 1), task.EndpointChat, codeInvalid, "custom_id"},
		{"no method", strings.Replace(good, `"method":"POST",`, "", 1), task.EndpointChat, codeMissing, "method"},
		{"GET", strings.Replace(good, "POST", "GET", 1), task.EndpointChat, codeMethod, "method"},
		{"no url", strings.Replace(good, `"url":"/v1/chat/completions",`, "", 1), task.EndpointChat, codeMissing, "url"},
		{"other url", good, task.EndpointEmbeddings, codeURL, "url"},
		{"no body", chat(`"x":1`), task.EndpointChat, codeMissing, "body"},
		{"null body", chat(`"body":null`), task.EndpointChat, codeMissing, "body"},
		{"a text as body", chat(`"body":"x"`), task.EndpointChat, codeInvalid, "body"},
		{"an array as body", chat(`"body":[]`), task.EndpointChat, codeInvalid, "body"},
		{"no model", chat(`"body":{}`), task.EndpointChat, codeMissing, "body.model"},
		{"a number as model", chat(`"body":{"model":1}`), task.EndpointChat, codeInvalid, "body.model"},
		{"stream", chat(`"body":{"model":"m","stream":true}`), task.EndpointChat, codeInvalid, "body.stream"},
		{"a bad priority", chat(`"body":{"model":"m"},"priority":10`), task.EndpointChat, codeInvalid, "body.priority"},
		{"a task with an id", `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"task_id":"x","prompt":"x"}}`, EndpointTasks, codeInvalid, "body.task_id"},
		{"a misspelt task", `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"promt":"x"}}`, EndpointTasks, codeInvalid, "body"},
		{"a task without a prompt", `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{}}`, EndpointTasks, codeInvalid, "body.prompt"},
		{"a priority in a word", `{"custom_id":"a","method":"POST","url":"/v1/tasks","priority":"high","body":{"prompt":"x","priority":"low"}}`, EndpointTasks, "", ""},
		{"no such priority", `{"custom_id":"a","method":"POST","url":"/v1/tasks","priority":"urgent","body":{"prompt":"x"}}`, EndpointTasks, codeInvalid, "priority"},
		{"no such priority of the task", `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"x","priority":"urgent"}}`, EndpointTasks, codeInvalid, "body.priority"},
		{"too long a prompt", `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"` + strings.Repeat("x", task.PromptMax+1) + `"}}`, EndpointTasks, codeTooLarge, "body.prompt"},
	} {
		l, p := decode([]byte(c.line), c.endpoint)
		if c.code == "" {
			require.Nil(t, p, "%s: %v", c.name, p)
			require.Equal(t, "a", l.CustomID)
			continue
		}
		require.NotNil(t, p, c.name)
		require.Equal(t, c.code, p.Code, "%s: %s", c.name, p.Message)
		require.Equal(t, c.param, p.Param, "%s: %s", c.name, p.Message)
		require.NotEmpty(t, p.Message)
	}
}

// TestTheSameLineIsTheSameTask looks at the message that creates a line's task.
func TestTheSameLineIsTheSameTask(t *testing.T) {
	now := time.Now()
	d := &driver{Options: &Options{}, id: NewID()}
	s := &State{Header: &Header{Endpoint: task.EndpointChat}, ExpiresAt: now}
	seven := task.Priority(7)
	m, err := d.submit([]byte(good), 3, s, &seven)
	require.NoError(t, err)
	again, err := d.submit([]byte(good), 3, s, &seven)
	require.NoError(t, err)
	require.Equal(t, m, again)
	require.Equal(t, LineID(d.id, 3), m.Spec.ID)
	require.True(t, IsLine(m.Spec.ID))
	require.Equal(t, &task.Line{Batch: d.id, Number: 3, CustomID: "a", Model: "m"}, m.Line)
	require.Equal(t, task.EndpointChat, m.Spec.Endpoint)
	require.JSONEq(t, `{"model":"m","messages":[]}`, string(m.Spec.Request))
	require.Equal(t, seven, *m.Spec.Priority)
	require.Equal(t, map[string]string{"batch_id": d.id}, m.Spec.Metadata)
	require.WithinDuration(t, now, *m.Spec.Deadline, time.Microsecond)
	require.NoError(t, m.Spec.Validate())

	line := `{"custom_id":"a","method":"POST","url":"/v1/tasks","priority":1,"metadata":{"k":"v"},"body":{"prompt":"x","deadline":"2001-01-01T00:00:00Z","metadata":{"l":"w"}}}`
	s.Header.Endpoint = EndpointTasks
	m, err = d.submit([]byte(line), 3, s, &seven)
	require.NoError(t, err)
	require.EqualValues(t, 1, *m.Spec.Priority, "a line's own priority counts")
	require.Equal(t, 2001, m.Spec.Deadline.Year(), "and its own deadline, when that is sooner")
	require.Equal(t, map[string]string{"k": "v", "batch_id": d.id}, m.Spec.Metadata)

	late := fmt.Sprintf(`{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"x","not_before":%q}}`, now.Add(time.Hour).Format(time.RFC3339))
	m, err = d.submit([]byte(late), 3, s, nil)
	require.NoError(t, err)
	require.NoError(t, m.Spec.Validate(), "it waits until the batch expires, and ends with it")
	require.Equal(t, PriorityNone, m.Spec.Priority)

	_, err = d.submit([]byte(`{}`), 3, s, nil)
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
}

// PriorityNone is no priority.
var PriorityNone *task.Priority

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		in   string
		want []string // "!" for one that is too long
	}{
		{"", nil}, {"a", []string{"a"}}, {"a\n", []string{"a"}}, {"a\r\nb\r\n", []string{"a", "b"}}, {"\xef\xbb\xbfa\nb", []string{"a", "b"}},
		{"a\n\n", []string{"a", ""}}, {"\n", []string{""}}, {"a\n\xef\xbb\xbfb", []string{"a", "\xef\xbb\xbfb"}},
		{long + "\n" + long + "y\nb\n", []string{long, "!", "b"}}, {strings.Repeat("z", 3*linesBuffer) + "\r\nb", []string{"!", "b"}},
		{"\xef\xbb\xbf" + long + "\r\nb", []string{long, "b"}}, {long + "y", []string{"!"}},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(c.in), "bytes": iotest.OneByteReader(strings.NewReader(c.in))} {
			l := newLines(r, 0, 0, 100)
			var got []string
			var offsets []int64
			for {
				b, err := l.next()
				if errors.Is(err, io.EOF) {
					break
				}
				if errors.Is(err, errLineLong) {
					b = []byte("!")
				} else {
					require.NoError(t, err)
				}
				got = append(got, string(b))
				offsets = append(offsets, l.offset)
			}
			require.Equal(t, c.want, got, "%s: %.50q", name, c.in)
			require.EqualValues(t, len(got), l.number)
			require.EqualValues(t, len(c.in), l.offset)
			for i := range offsets[:max(0, len(offsets)-1)] { // reading on from any of them gives the rest
				l := newLines(strings.NewReader(c.in[offsets[i]:]), offsets[i], uint64(i+1), 100)
				b, err := l.next()
				if c.want[i+1] == "!" {
					require.ErrorIs(t, err, errLineLong)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, c.want[i+1], string(b))
			}
		}
	}
	_, err := newLines(iotest.ErrReader(io.ErrClosedPipe), 0, 0, 100).next()
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

// FuzzDecode: whatever a line is, it is judged; one that is good makes a task that is.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(good), task.EndpointChat)
	f.Add([]byte(`{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"x","steps":["y"]},"retry":{"attempts":1}}`), EndpointTasks)
	f.Add([]byte("\xef\xbb\xbf{}"), "")
	f.Add([]byte(`{"custom_id":"a","method":"POST","url":"","body":{"stream":1}}`), "")
	d := &driver{Options: &Options{}, id: NewID()}
	f.Fuzz(func(t *testing.T, b []byte, endpoint string) {
		l, p := decode(b, endpoint)
		if p != nil {
			if p.Code == "" || p.Message == "" {
				t.Fatalf("%+v says nothing", p)
			}
			return
		}
		s := &State{Header: &Header{Endpoint: endpoint}, ExpiresAt: time.Now().Add(time.Hour)}
		m, err := d.submit(b, 1, s, nil)
		if err != nil || m.Spec.Validate() != nil || m.Line.CustomID != l.CustomID {
			t.Fatalf("a good line makes no good task: %v, %v", err, m)
		}
		if line := never(s, d.id, 1, l.CustomID); !json.Valid(line) || bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("it is rendered as %q", line)
		}
	})
}

// FuzzLines: lines joined again are the input, but for what is taken off.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n\nb"), 3)
	f.Add([]byte("\xef\xbb\xbf"), 1)
	f.Fuzz(func(t *testing.T, b []byte, max int) {
		if max < 0 || max > 1<<20 {
			return
		}
		l := newLines(bytes.NewReader(b), 0, 0, max)
		for start := int64(0); ; {
			got, err := l.next()
			if errors.Is(err, io.EOF) {
				break
			}
			raw := b[start:l.offset]
			if start == 0 {
				raw = bytes.TrimPrefix(raw, bom)
			}
			want := bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
			if long := len(want) > max; long != errors.Is(err, errLineLong) || !long && !bytes.Equal(got, want) {
				t.Fatalf("%q, %v: not %q", got, err, want)
			}
			start = l.offset
		}
		if l.offset != int64(len(b)) {
			t.Fatalf("%d of %d bytes", l.offset, len(b))
		}
	})
}
