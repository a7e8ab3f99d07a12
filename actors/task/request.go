package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// The endpoints of OpenAI's API that a request may be for.
const (
	EndpointChat        = "/v1/chat/completions"
	EndpointCompletions = "/v1/completions"
	EndpointEmbeddings  = "/v1/embeddings"
	EndpointResponses   = "/v1/responses"
)

// Endpoints returns all of them.
func Endpoints() []string {
	return []string{EndpointChat, EndpointCompletions, EndpointEmbeddings, EndpointResponses}
}

// RequestMax bounds a request's body, in bytes: images travel in it. A record with it must fit in WorkMax.
const RequestMax = 4 << 20

// EndpointOr is what an engine is asked by: a request's endpoint, chat for all other tasks.
func (s *Spec) EndpointOr() string {
	if s.Endpoint == "" {
		return EndpointChat
	}
	return s.Endpoint
}

// ModelOr is whose queue the task waits in: the spec's model, else its request's, else def.
func (s *Spec) ModelOr(def string) string {
	if s.Model != "" {
		return s.Model
	}
	if len(s.Request) > 0 {
		if m, err := RequestModel(s.Request); err == nil && m != "" {
			return m
		}
	}
	return def
}

// FormatOr is the form that the answer was promised in: the spec's, or that of a request to the chat endpoint. Of a
// request only what can be checked counts: what else an engine knows is between the client and the engine.
func (s *Spec) FormatOr() json.RawMessage {
	if len(s.Request) == 0 || s.EndpointOr() != EndpointChat {
		return s.Format
	}
	var f struct {
		Type string `json:"type"`
	}
	fields, err := requestFields(s.Request)
	if err != nil {
		return nil
	}
	raw := fields["response_format"]
	if json.Unmarshal(raw, &f) != nil || f.Type != "json_object" && f.Type != "json_schema" {
		return nil
	}
	return raw
}

// RequestModel returns the model that a request's body names, "" when it names none.
func RequestModel(body json.RawMessage) (string, error) {
	fields, err := requestFields(body)
	if err != nil {
		return "", err
	}
	raw, ok := fields["model"]
	if !ok || string(raw) == "null" {
		return "", nil
	}
	var m string
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", fault.New(fault.Invalid, "task.validate", "request.model", "is no string")
	}
	return m, nil
}

// requestFields reads a body's top level. Names count as they are written: a map has no opinion about upper case.
func requestFields(body json.RawMessage) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, fault.New(fault.Invalid, "task.validate", "request", "is no JSON object")
	}
	return fields, nil
}

// validateRequest checks what needs no engine: the engine judges the rest.
func (s *Spec) validateRequest() error {
	bad := func(field, format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "task.validate", field, format, args...)
	}
	if len(s.Request) == 0 {
		if s.Endpoint != "" {
			return bad("endpoint", "goes with request only").WithRemedy("give the body as request, or leave endpoint out")
		}
		return nil
	}
	if !slices.Contains(Endpoints(), s.EndpointOr()) {
		return bad("endpoint", "is %q: use one of %s", s.Endpoint, strings.Join(Endpoints(), ", "))
	}
	if len(s.Request) > RequestMax {
		return fault.New(fault.TooLarge, "task.validate", "request", "has %d bytes, the limit is %d", len(s.Request), RequestMax)
	}
	for field, given := range map[string]bool{"system": s.System != "", "steps": len(s.Steps) > 0, "data_url": s.DataURL != "", "max_tokens": s.MaxTokens != 0,
		"temperature": s.Temperature != nil, "top_p": s.TopP != nil, "seed": s.Seed != nil, "stop": len(s.Stop) > 0, "response_format": len(s.Format) > 0, "repair": s.Repair != nil} {
		if given {
			return bad(field, "cannot go beside request: the request itself says it")
		}
	}
	if !utf8.Valid(s.Request) {
		return bad("request", "is not UTF-8")
	}
	fields, err := requestFields(s.Request)
	if err != nil {
		return err
	}
	for name, v := range fields {
		if strings.EqualFold(name, "stream") && string(v) != "false" && string(v) != "null" { // some engines are not strict about case
			return bad("request.stream", "is %s: a task has its answer in one piece", v).WithRemedy("leave it out")
		}
	}
	m, err := RequestModel(s.Request)
	if err != nil {
		return err
	}
	if err := checkModelName(m, "request.model"); err != nil {
		return err
	}
	form := s.FormatOr()
	if len(form) > SchemaMax {
		return bad("request.response_format", "has %d bytes, the limit is %d", len(form), SchemaMax)
	}
	return validateFormat(form)
}

func checkModelName(name, field string) error {
	if len(name) > IDMax || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.Invalid, "task.validate", field, "must be at most %d bytes of UTF-8 text without control characters", IDMax)
	}
	return nil
}

// RequestFor returns body as it goes to an engine that calls the model so: as it is, but for "model".
func RequestFor(body json.RawMessage, model string) (json.RawMessage, error) {
	name, err := json.Marshal(model)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fault.New(fault.Invalid, "task.request", "request", "is no JSON object")
	}
	var out []byte
	open, from, named := int(d.InputOffset()), 0, false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("task.request: %w", err)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, fmt.Errorf("task.request: %w", err)
		}
		if key != "model" {
			continue
		}
		named = true
		if bytes.Equal(v, name) {
			continue
		}
		end := int(d.InputOffset())
		out = append(append(out, body[from:end-len(v)]...), name...)
		from = end
	}
	switch {
	case !named:
		out = append(append(append(out, body[:open]...), `"model":`...), name...)
		if from = open; len(bytes.TrimSpace(body[open:])) > 1 { // something follows
			out = append(out, ',')
		}
	case from == 0:
		return body, nil
	}
	return append(out, body[from:]...), nil
}

// Content is the text of an answer, also of one that is a whole body; "" when it has none (embeddings).
func (a *Answer) Content() string {
	if t := a.Contents(); len(t) > 0 {
		return t[0]
	}
	return ""
}

// Contents are the texts of an answer: one, unless a request asked for several. A choice without content (a tool call, a
// refusal) is left out.
func (a *Answer) Contents() (texts []string) {
	if len(a.Body) == 0 {
		return []string{a.Text}
	}
	var body struct {
		Choices []struct {
			Text    *string `json:"text"`
			Message struct {
				Content Content `json:"content"`
			} `json:"message"`
		} `json:"choices"`
		Output []struct {
			Content []struct {
				Text string `json:"text"`
			} `json:"content"`
		} `json:"output"`
	}
	if json.Unmarshal(a.Body, &body) != nil {
		return nil
	}
	for _, c := range body.Choices {
		switch {
		case c.Message.Content.Set:
			texts = append(texts, c.Message.Content.Text)
		case c.Text != nil:
			texts = append(texts, *c.Text)
		}
	}
	var said strings.Builder
	for _, o := range body.Output {
		for _, p := range o.Content {
			said.WriteString(p.Text)
		}
	}
	if len(body.Output) > 0 {
		texts = append(texts, said.String())
	}
	return texts
}

// Content is a message's content as engines write it: a string, null, or a list of text parts.
type Content struct {
	Text string
	Set  bool // it was not null
}

// UnmarshalJSON takes each of the three forms.
func (c *Content) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	c.Set = true
	if len(b) > 0 && b[0] == '[' {
		var parts []struct {
			Text string `json:"text"`
		}
		if err := json.Unmarshal(b, &parts); err != nil {
			return err
		}
		var s strings.Builder
		for _, p := range parts {
			s.WriteString(p.Text)
		}
		c.Text = s.String()
		return nil
	}
	return json.Unmarshal(b, &c.Text)
}
