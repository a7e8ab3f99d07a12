package openai

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/open-autoglm/autoglm/actors/task"
)

// live writes a whole answer as the server-sent events of a stream: for each choice a piece with all of it and one that
// ends it, then the usage if it was asked for.
type live struct {
	endpoint string
	usage    bool
}

// whole is what of an answer goes into pieces.
type whole struct {
	ID      string          `json:"id"`
	Created json.RawMessage `json:"created"`
	Model   string          `json:"model"`
	Print   json.RawMessage `json:"system_fingerprint"`
	Choices []struct {
		Index    int             `json:"index"`
		Message  map[string]any  `json:"message"`
		Text     json.RawMessage `json:"text"`
		LogProbs json.RawMessage `json:"logprobs"`
		Finish   json.RawMessage `json:"finish_reason"`
	} `json:"choices"`
	Usage json.RawMessage `json:"usage"`
}

func (l *live) events(answer []byte) ([]byte, error) {
	var a whole
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("openai.stream: %w", err)
	}
	var out bytes.Buffer
	object := "text_completion"
	if l.endpoint == task.EndpointChat {
		object = "chat.completion.chunk"
	}
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	var err error
	send := func(choices []any, usage json.RawMessage) {
		piece := map[string]any{"id": a.ID, "object": object, "created": a.Created, "model": a.Model, "choices": choices}
		if a.Print != nil {
			piece["system_fingerprint"] = a.Print
		}
		if l.usage {
			piece["usage"] = usage // null but in the last one
		}
		out.WriteString("data: ")
		if e := enc.Encode(piece); e != nil {
			err = e
		}
		out.WriteByte('\n')
	}
	for _, c := range a.Choices {
		piece := map[string]any{"index": c.Index, "logprobs": c.LogProbs, "finish_reason": nil}
		end := map[string]any{"index": c.Index, "logprobs": nil, "finish_reason": c.Finish}
		if l.endpoint == task.EndpointChat {
			piece["delta"], end["delta"] = deltaOf(c.Message), map[string]any{}
		} else {
			piece["text"], end["text"] = c.Text, ""
		}
		send([]any{piece}, nil)
		send([]any{end}, nil)
	}
	if l.usage {
		send([]any{}, a.Usage)
	}
	if err != nil {
		return nil, fmt.Errorf("openai.stream: %w", err)
	}
	out.WriteString("data: [DONE]\n\n")
	return out.Bytes(), nil
}

// deltaOf is a whole message as one piece: the same, but that calls of tools are counted in a stream.
func deltaOf(message map[string]any) map[string]any {
	calls, _ := message["tool_calls"].([]any)
	for i, c := range calls {
		if call, ok := c.(map[string]any); ok {
			call["index"] = i
		}
	}
	return message
}
