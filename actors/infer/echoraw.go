package infer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// EchoEndpoints are what an Echo answers.
func EchoEndpoints() []string {
	return []string{task.EndpointChat, task.EndpointCompletions, task.EndpointEmbeddings}
}

// echoWidth is how many numbers a vector of an Echo has, and echoWidthMax how many may be asked for.
const (
	echoWidth    = 8
	echoWidthMax = 4096
)

// echoQuestion is what an Echo reads of a request.
type echoQuestion struct {
	Messages []struct {
		Role    string       `json:"role"`
		Content task.Content `json:"content"`
	} `json:"messages"`
	Prompt     echoTexts `json:"prompt"`
	Input      echoTexts `json:"input"`
	Encoding   string    `json:"encoding_format"`
	Dimensions *int      `json:"dimensions"`
}

// echoTexts is a text, or a list of texts; numbers (tokens) are texts as they are written.
type echoTexts []string

// UnmarshalJSON takes all of these.
func (t *echoTexts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = echoTexts{one}
		return nil
	}
	var many []json.RawMessage
	if err := json.Unmarshal(b, &many); err != nil {
		return err
	}
	*t = make(echoTexts, len(many))
	for i, m := range many {
		if json.Unmarshal(m, &(*t)[i]) != nil {
			(*t)[i] = string(m)
		}
	}
	return nil
}

// question reads what is to be echoed: the last user message, each prompt, each input.
func (e *Echo) question(r *Request) (q echoQuestion, texts []string, err error) {
	bad := func(format string, args ...any) error {
		return refusedRaw(http.StatusBadRequest, fault.New(fault.Invalid, "infer.echo", r.Key, format, args...))
	}
	if err := json.Unmarshal(r.Raw, &q); err != nil {
		return q, nil, bad("the request cannot be read: %w", err)
	}
	switch r.Endpoint {
	case task.EndpointChat:
		for i := len(q.Messages) - 1; i >= 0; i-- {
			if q.Messages[i].Role == "user" {
				return q, []string{q.Messages[i].Content.Text}, nil
			}
		}
		return q, nil, bad("no user message to answer")
	case task.EndpointCompletions:
		texts = q.Prompt
	case task.EndpointEmbeddings:
		texts = q.Input
		if d := q.Dimensions; d != nil && (*d < 1 || *d > echoWidthMax) {
			return q, nil, bad("dimensions is %d: use 1 to %d", *d, echoWidthMax)
		}
	default:
		return q, nil, refusedRaw(http.StatusNotFound, fault.New(fault.NotFound, "infer.echo", r.Key, "%s is not served here", r.Endpoint))
	}
	if len(texts) == 0 {
		return q, nil, bad("no text to answer")
	}
	return q, texts, nil
}

// refusedRaw is an HTTP error as an engine behind a URL would answer it.
func refusedRaw(status int, err *fault.Error) error {
	return &task.EngineError{Status: status, Body: task.SaidBody(nil, err.Err.Error()), Err: err}
}

// rawFault gives a directive's failure the status that engines have for it; what is no answer at all has none.
func rawFault(err *fault.Error) error {
	status := map[fault.Kind]int{fault.Invalid: 400, fault.Refused: 403, fault.NotFound: 404, fault.TooLarge: 413, fault.Overloaded: 429}[err.Kind]
	if status == 0 {
		return err
	}
	return refusedRaw(status, err)
}

// answerRaw writes what OpenAI's API would, with texts as the answers.
func (e *Echo) answerRaw(r *Request, q *echoQuestion, texts []string) (*Response, error) {
	sum := sha256.Sum256([]byte(r.Key))
	id := hex.EncodeToString(sum[:12])
	body := map[string]any{"model": r.Model, "created": 0} // the same request has the same answer
	res := &Response{Model: r.Model, Status: http.StatusOK, FinishReason: "stop"}
	var list []any
	switch r.Endpoint {
	case task.EndpointChat:
		body["id"], body["object"] = "chatcmpl-"+id, "chat.completion"
		for _, m := range q.Messages {
			res.PromptTokens += RoughTokens(m.Content.Text) + tokensPerMessage
		}
		for i, t := range texts {
			res.OutputTokens += RoughTokens(t)
			list = append(list, map[string]any{"index": i, "finish_reason": "stop", "logprobs": nil,
				"message": map[string]any{"role": "assistant", "content": t, "refusal": nil}})
		}
		body["choices"] = list
	case task.EndpointCompletions:
		body["id"], body["object"] = "cmpl-"+id, "text_completion"
		for i, t := range texts {
			res.OutputTokens += RoughTokens(t)
			list = append(list, map[string]any{"index": i, "text": t, "finish_reason": "stop", "logprobs": nil})
		}
		res.PromptTokens = res.OutputTokens
		body["choices"] = list
	case task.EndpointEmbeddings:
		body["object"], res.FinishReason = "list", ""
		delete(body, "created")
		width := echoWidth
		if q.Dimensions != nil {
			width = *q.Dimensions
		}
		for i, t := range texts {
			res.PromptTokens += RoughTokens(t)
			list = append(list, map[string]any{"object": "embedding", "index": i, "embedding": encodedVector(echoVector(t, width), q.Encoding)})
		}
		body["data"] = list
	}
	usage := map[string]any{"prompt_tokens": res.PromptTokens, "total_tokens": res.PromptTokens + res.OutputTokens}
	if r.Endpoint != task.EndpointEmbeddings {
		usage["completion_tokens"] = res.OutputTokens
	}
	body["usage"] = usage
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, fmt.Errorf("infer.echo: %w", err)
	}
	res.Raw = json.RawMessage(strings.TrimSuffix(b.String(), "\n"))
	return res, nil
}

// echoVector is a vector of length 1 that depends on the text alone.
func echoVector(text string, width int) []float32 {
	v := make([]float32, width)
	sum, norm := sha256.Sum256([]byte(text)), 0.0
	for i := range v {
		if i > 0 && i%8 == 0 {
			sum = sha256.Sum256(sum[:])
		}
		x := float64(int32(binary.LittleEndian.Uint32(sum[i%8*4:]))) / math.MaxInt32
		v[i], norm = float32(x), norm+x*x
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(max(norm, 1e-12)))
	}
	return v
}

// encodedVector is base64 of little-endian floats where it is asked for, as official clients do.
func encodedVector(v []float32, format string) any {
	if format != "base64" {
		return v
	}
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}
