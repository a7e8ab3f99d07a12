package task

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of tools.
const (
	ToolOutputMax  = 1 << 20 // bytes of a tool's output: it is journaled
	ToolHeadersMax = 32
	HeaderNameMax  = 64   // bytes
	HeaderValueMax = 1024 // bytes
	RetryOnMax     = 16   // statuses
	ToolTextsMax   = 256  // strings with a template in a body or an input
	ModuleMax      = 72   // bytes of a module's name; sha256: and 64 digits have 71
	WasmMemory     = 64   // MiB, where a step does not say
	WasmMemoryMax  = 1024 // MiB
)

// HTTPTool is a request that a step makes instead of asking an engine.
type HTTPTool struct {
	Method  string            `json:"method,omitempty" enum:"GET,POST,PUT,PATCH,DELETE" doc:"POST with a body, GET without one when left out."`
	URL     string            `json:"url" doc:"A template behind its host, which must stand there as it is."`
	Headers map[string]string `json:"headers,omitempty" doc:"No templates, and no secrets: they are kept with the task."`
	Body    json.RawMessage   `json:"body,omitempty" doc:"A string is a template of the whole body; of any other JSON each string in it is a template."`
	Timeout Duration          `json:"timeout,omitempty" doc:"In place of the task's."`
	RetryOn []int             `json:"retry_on,omitempty" doc:"Statuses of 400 and more that are tried again although they would fail the task, like 404." maxItems:"16"`
}

// WasmTool is a function that a step runs instead of asking an engine.
type WasmTool struct {
	Module   string          `json:"module" doc:"Name of a file in the nodes' tools.wasm_dir, without .wasm, or sha256: and the file's SHA-256." maxLength:"72"`
	Function string          `json:"function,omitempty" doc:"An exported function without parameters; _start, which is main, when left out." maxLength:"64"`
	Input    json.RawMessage `json:"input,omitempty" doc:"Its standard input, as an HTTP tool's body; prompt, metadata and steps as JSON when left out."`
	Timeout  Duration        `json:"timeout,omitempty" doc:"In place of the task's."`
	MemoryMB int             `json:"memory_mb,omitempty" doc:"Most MiB of memory that it may have; 64 when 0." minimum:"0" maximum:"1024"`
}

// Call is a tool's step, with its templates rendered.
type Call struct {
	Question int
	Key      string // the same for all attempts, and of no other step: see ToolKey

	Method  string // HTTP
	URL     string
	Headers map[string]string
	RetryOn []int

	Module   string // WASM; "" for HTTP
	Function string
	MemoryMB int

	Input     []byte // the body, or standard input
	InputJSON bool
}

// ToolKey names a step of a task to whom it calls.
func ToolKey(id string, question int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", id, question))
	return hex.EncodeToString(h[:16])
}

func (s *TaskStep) tool() bool { return s.HTTP != nil || s.Wasm != nil }

// timeout is a tool's own, 0 where it has none.
func (s *TaskStep) timeout() time.Duration {
	switch {
	case s == nil:
	case s.HTTP != nil:
		return time.Duration(s.HTTP.Timeout)
	case s.Wasm != nil:
		return time.Duration(s.Wasm.Timeout)
	}
	return 0
}

// LongestTimeout is the longest that the task asks for, of any attempt.
func (s *Spec) LongestTimeout() time.Duration {
	most := time.Duration(s.Timeout)
	for i := range s.Steps {
		most = max(most, s.Steps[i].timeout())
	}
	return most
}

// methods are those of HTTP tools.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

func (h *HTTPTool) method() string {
	switch {
	case h.Method != "":
		return h.Method
	case len(h.Body) > 0:
		return http.MethodPost
	}
	return http.MethodGet
}

// oursOnly are headers that are not a step's to set.
var oursOnly = []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Te", "Trailer", "Upgrade", "Expect", "Accept-Encoding", "Idempotency-Key", "Traceparent", "Tracestate"}

// secret are headers that hold nothing but secrets.
var secret = []string{"Authorization", "Proxy-Authorization", "Cookie"}

// validateTool checks a step that is a tool.
func (s *TaskStep) validateTool(field string) error {
	bad := func(sub, format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "task.validate", field+sub, format, args...)
	}
	switch {
	case s.HTTP != nil && s.Wasm != nil || s.Prompt != "" || s.Map != nil || s.Reduce != nil:
		return bad("", "is more than one of prompt, map, http and wasm: give one of them")
	case s.System != "" || s.MaxTokens != 0 || s.Temperature != nil || s.History != nil || s.Repair != nil || s.Model != "":
		return bad("", "is a tool: only name and response_format go beside it")
	case s.timeout() < 0:
		return bad("", "has a timeout that is negative")
	}
	if w := s.Wasm; w != nil {
		switch {
		case !moduleName(w.Module):
			return bad(".wasm.module", "is %.80q: use letters, digits, _, - and . of a name, not a dot first, or sha256: and 64 hexadecimal digits", w.Module)
		case w.Function != "" && !identifier(w.Function):
			return bad(".wasm.function", "is %.80q: use letters, digits and _", w.Function)
		case w.MemoryMB < 0 || w.MemoryMB > WasmMemoryMax:
			return bad(".wasm.memory_mb", "is %d: use at most %d", w.MemoryMB, WasmMemoryMax)
		}
		return checkJSON(w.Input, field+".wasm.input")
	}
	h := s.HTTP
	if h.Method != "" && !slices.Contains(methods, h.Method) {
		return bad(".http.method", "is %.20q: use one of %s", h.Method, strings.Join(methods, ", "))
	}
	if len(h.Body) > 0 && h.method() == http.MethodGet {
		return bad(".http.body", "goes with another method than GET")
	}
	if err := checkToolURL(h.URL); err != nil {
		return bad(".http.url", "%w", err)
	}
	if len(h.Headers) > ToolHeadersMax {
		return bad(".http.headers", "has %d entries, the limit is %d", len(h.Headers), ToolHeadersMax)
	}
	for k, v := range h.Headers {
		switch name := http.CanonicalHeaderKey(k); {
		case !headerName(k) || len(v) > HeaderValueMax || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }):
			return bad(".http.headers", "%.80q: use names of at most %d letters, digits and -, and values of at most %d printable ASCII characters", k, HeaderNameMax, HeaderValueMax)
		case slices.Contains(oursOnly, name):
			return bad(".http.headers", "%s is not a task's to set", name)
		case slices.Contains(secret, name):
			return bad(".http.headers", "%s would be a secret that is kept with the task, for all to read who may read it", name).
				WithRemedy("call a proxy of yours that adds it")
		}
	}
	if len(h.RetryOn) > RetryOnMax || slices.ContainsFunc(h.RetryOn, func(n int) bool { return n < 400 || n > 599 }) {
		return bad(".http.retry_on", "is for at most %d statuses of 400 to 599", RetryOnMax)
	}
	return checkJSON(h.Body, field+".http.body")
}

func checkJSON(raw json.RawMessage, field string) error {
	if len(raw) > 0 && !json.Valid(raw) {
		return fault.New(fault.Invalid, "task.validate", field, "is no JSON")
	}
	if n := len(leaves(field, raw)); n > ToolTextsMax {
		return fault.New(fault.Invalid, "task.validate", field, "has %d strings with a template, the limit is %d", n, ToolTextsMax).
			WithRemedy("make it one string, a template of the whole text")
	}
	return nil
}

// moduleName keeps paths out: what it lets through is looked up in a list, too.
func moduleName(s string) bool {
	if sum, ok := strings.CutPrefix(s, "sha256:"); ok {
		b, err := hex.DecodeString(sum)
		return err == nil && len(b) == sha256.Size && sum == strings.ToLower(sum)
	}
	return ModuleName(s)
}

// ModuleName tells whether a module may have the name.
func ModuleName(s string) bool {
	return s != "" && len(s) <= 64 && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool { return r != '.' && r != '-' && !wordly(r) })
}

func wordly(r rune) bool {
	return r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func headerName(s string) bool {
	return s != "" && len(s) <= HeaderNameMax && !strings.ContainsFunc(s, func(r rune) bool { return r != '-' && !wordly(r) })
}

// checkToolURL wants scheme and host to stand there as they are: no answer of a model may choose whom the node talks to.
func checkToolURL(text string) error {
	fixed, _, open := strings.Cut(text, "{{")
	u, err := url.Parse(fixed)
	switch {
	case len(text) > URLMax:
		return fmt.Errorf("has %d bytes, the limit is %d", len(text), URLMax)
	case err != nil:
		return errors.New("is no URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("must begin with http:// or https:// and a host, which no template may make")
	case u.User != nil:
		return errors.New("has a user or a password, which would be kept with the task")
	case open && u.Path == "":
		return errors.New("has a template in its host: put a / before the template")
	}
	return nil
}

// stepText is one template of a step.
type stepText struct {
	field string // behind the step's
	text  string
	more  map[string]any // of the root, beside what all templates see, with made-up values
}

// templates are all that the step has.
func (s *TaskStep) templates() (all []stepText) {
	switch {
	case s.HTTP != nil:
		all = append(all, stepText{".http.url", s.HTTP.URL, nil})
		return append(all, leaves(".http.body", s.HTTP.Body)...)
	case s.Wasm != nil:
		return leaves(".wasm.input", s.Wasm.Input)
	case s.Map != nil:
		return []stepText{{".map.prompt", s.Map.Prompt, map[string]any{"part": sampleText, "index": 0, "of": 1}},
			{".reduce.prompt", s.Reduce.Prompt, map[string]any{"parts": []string{sampleText, sampleText}}}}
	}
	return []stepText{{".prompt", s.Prompt, nil}}
}

func leaves(field string, raw json.RawMessage) (all []stepText) {
	_, _, _ = renderJSON(raw, func(text string) (string, error) {
		all = append(all, stepText{field, text, nil})
		return "", nil
	})
	return all
}

// renderJSON makes what is sent of a body or input: a string is a text, and tells by itself whether it became JSON; of other JSON every string is rendered.
func renderJSON(raw json.RawMessage, render func(string) (string, error)) (out []byte, isJSON bool, err error) {
	if len(raw) == 0 {
		return nil, false, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false, err
	}
	if text, ok := v.(string); ok {
		said, err := render(text)
		return []byte(said), json.Valid([]byte(said)), err
	}
	if v, err = renderIn(v, render); err != nil {
		return nil, false, err
	}
	var b limited
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, false, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), true, nil
}

func renderIn(v any, render func(string) (string, error)) (any, error) {
	var err error
	switch x := v.(type) {
	case string:
		if len(x) <= StepPromptMax && !strings.Contains(x, "{{") {
			return x, nil // nothing to render, and there may be very many
		}
		return render(x)
	case []any:
		for i := range x {
			if x[i], err = renderIn(x[i], render); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		slices.Sort(keys) // so that an error is the same each time
		for _, k := range keys {
			if x[k], err = renderIn(x[k], render); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// call makes the call of a step that is a tool.
func (e *scene) call(q int) (*Call, error) {
	step := e.spec.step(q)
	c := &Call{Question: q}
	root, err := e.root(q)
	if err != nil {
		return nil, e.failed(q, err)
	}
	used := &expense{}
	render := func(text string) (string, error) { return e.textOf(q, text, root, nil, used) }
	raw := json.RawMessage(nil)
	if h := step.HTTP; h != nil {
		c.Method, c.Headers, c.RetryOn, raw = h.method(), h.Headers, h.RetryOn, h.Body
		said, err := render(h.URL)
		if err != nil {
			return nil, err
		}
		c.URL, used.bytes = said, 0 // it is not of the body
	} else {
		c.Module, c.Function, c.MemoryMB, raw = step.Wasm.Module, step.Wasm.Function, step.Wasm.MemoryMB, step.Wasm.Input
		if c.MemoryMB == 0 {
			c.MemoryMB = WasmMemory
		}
		if len(raw) == 0 {
			raw = json.RawMessage(`"{\"prompt\":{{json .prompt}},\"metadata\":{{json .metadata}},\"steps\":{{json .steps}}}"`)
		}
	}
	if c.Input, c.InputJSON, err = renderJSON(raw, render); err != nil {
		if fault.KindOf(err) == fault.Unknown && !errors.Is(err, ErrNeedsData) {
			err = e.failed(q, err)
		}
		return nil, err
	}
	if !utf8.Valid(c.Input) {
		return nil, e.failed(q, errors.New("what it makes is no UTF-8 text"))
	}
	return c, nil
}
