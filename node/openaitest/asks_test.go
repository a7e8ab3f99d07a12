package openaitest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
)

func TestTheOfficialClientAsks(t *testing.T) {
	c := official(boot(t, testConfig(t)))
	ctx := t.Context()
	say := []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("s"), openai.UserMessage("hello <you>")}

	chat, err := c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "any", Messages: say})
	require.NoError(t, err)
	require.Equal(t, "hello <you>", chat.Choices[0].Message.Content)
	require.Equal(t, "any", chat.Model)
	require.Positive(t, chat.Usage.TotalTokens)

	stream := c.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{Model: "any", Messages: say,
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}})
	var whole openai.ChatCompletionAccumulator
	for stream.Next() {
		require.True(t, whole.AddChunk(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, "hello <you>", whole.Choices[0].Message.Content)
	require.Equal(t, "stop", whole.Choices[0].FinishReason)
	require.Equal(t, chat.Usage.TotalTokens, whole.Usage.TotalTokens)

	plain, err := c.Completions.New(ctx, openai.CompletionNewParams{Model: "any", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("once")}})
	require.NoError(t, err)
	require.Equal(t, "once", plain.Choices[0].Text)

	vectors, err := c.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "any", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "b"}}})
	require.NoError(t, err)
	require.Len(t, vectors.Data, 2)
	require.NotEmpty(t, vectors.Data[1].Embedding)

	models, err := c.Models.List(ctx)
	require.NoError(t, err)
	require.Equal(t, task.AnyModel, models.Data[0].ID)
	m, err := c.Models.Get(ctx, "zai-org/GLM-4") // an echo takes every name
	require.NoError(t, err)
	require.Equal(t, "zai-org/GLM-4", m.ID)

	_, err = c.Responses.New(ctx, responses.ResponseNewParams{Model: "any", Input: responses.ResponseNewParamsInputUnion{OfString: param.NewOpt("x")}})
	e := apiError(t, err, 400, "")
	require.Equal(t, "endpoint", e.Param)

	_, err = c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "any", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("#echo fail=always kind=too_large\nx")}})
	require.Equal(t, "failed as the prompt asked", apiError(t, err, 413, "").Message)
}

func TestAnIdempotencyKeyIsOneTask(t *testing.T) {
	n := boot(t, testConfig(t))
	c := official(n)
	ask := func(text string) (string, error) {
		var res *http.Response
		_, err := c.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{Model: "any", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}},
			option.WithHeader("Idempotency-Key", "order 1"), option.WithResponseInto(&res))
		if err != nil {
			require.Equal(t, "false", res.Header.Get("X-Should-Retry"))
			return "", err
		}
		return res.Header.Get("X-Autoglm-Task"), nil
	}
	first, err := ask("one")
	require.NoError(t, err)
	again, err := ask("one")
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.NotEmpty(t, first)
	_, err = ask("two")
	apiError(t, err, http.StatusConflict, "")
}

func TestARequestGoesThroughAsItIs(t *testing.T) {
	sent := make(chan string, 10)
	n := engineBehind(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		sent <- r.URL.Path + " " + string(b)
		io.WriteString(w, "{\"output\":[{\"content\":[{\"text\":\"yes\"}]}], \"choices\":[{\"message\":{\"content\":\"yes\"}}],\"odd\":1.50}")
	})
	post := func(path, body string) string {
		res, err := http.Post("http://"+n.HTTPAddr()+path, "", strings.NewReader(body))
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode, "%s", b)
		return string(b)
	}
	answer := `{"output":[{"content":[{"text":"yes"}]}],"choices":[{"message":{"content":"yes"}}],"odd":1.50}`
	require.Equal(t, answer, post("/v1/chat/completions", `{"model":"glm","top_k":7,"temperature":0.70,"messages":[]}`))
	require.Equal(t, `/v1/chat/completions {"model":"glm","top_k":7,"temperature":0.70,"messages":[]}`, <-sent)
	post("/v1/responses", `{"model":"default","input":"x"}`)
	require.Equal(t, `/v1/responses {"model":"glm","input":"x"}`, <-sent, "the default's name is ours")

	var view struct {
		taskView
		Response struct {
			Status int             `json:"status_code"`
			Body   json.RawMessage `json:"body"`
		} `json:"response"`
	}
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "r", "endpoint": task.EndpointResponses, "request": map[string]any{"input": "x"}}, nil)
	call(t, n, "GET", "/v1/tasks/r?wait=20s", nil, &view)
	require.Equal(t, "completed", view.State)
	require.Equal(t, "yes", view.Answer)
	require.Equal(t, 200, view.Response.Status)
	require.Equal(t, answer, string(view.Response.Body))

	c := official(n)
	_, err := c.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{Model: "gpt-9"})
	require.Equal(t, "model", apiError(t, err, 404, "model_not_found").Param)
	_, err = c.Models.Get(t.Context(), "gpt-9")
	apiError(t, err, 404, "model_not_found")
	models, err := c.Models.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, "glm", models.Data[0].ID)
}

func TestAnEnginesErrorReachesTheCaller(t *testing.T) {
	n := engineBehind(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(418)
		io.WriteString(w, `{"error":{"message":"I am a teapot","type":"tea","code":"short_and_stout","param":"spout"}}`)
	})
	c := official(n)
	_, err := c.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: "glm", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("x")}})
	e := apiError(t, err, 418, "short_and_stout")
	require.Equal(t, []string{"I am a teapot", "tea", "spout"}, []string{e.Message, e.Type, e.Param})
}

// TestAClientThatGoesAwayCancelsItsTask unless it may come back for it.
func TestAClientThatGoesAwayCancelsItsTask(t *testing.T) {
	began := make(chan string, 2)
	n := engineBehind(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		id, _, _ := strings.Cut(r.Header.Get("X-Request-Id"), "/")
		began <- id
		<-r.Context().Done()
	})
	c := official(n)
	ask := func(key string) (id string) {
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			var o []option.RequestOption
			if key != "" {
				o = append(o, option.WithHeader("Idempotency-Key", key))
			}
			_, err := c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "glm"}, o...)
			failed <- err
		}()
		id = <-began
		cancel()
		require.Error(t, <-failed)
		return id
	}
	var view taskView
	call(t, n, "GET", "/v1/tasks/"+ask("")+"?wait=20s", nil, &view)
	require.Equal(t, "cancelled", view.State)

	id := ask("k")
	call(t, n, "GET", "/v1/tasks/"+id, nil, &view)
	require.Equal(t, "running", view.State)
	call(t, n, "POST", "/v1/tasks/"+id+"/cancel", nil, &view)
	require.Equal(t, "cancelled", view.State)
}

// TestAStoppingNodeLetsItsClientsGo: they are told to come again, and nothing is left running for them.
func TestAStoppingNodeLetsItsClientsGo(t *testing.T) {
	began, release := make(chan bool, 1), make(chan bool)
	n := engineBehind(t, func(http.ResponseWriter, *http.Request) {
		began <- true
		<-release // the attempt itself runs to its end: the node waits for it
	})
	failed := make(chan error, 1)
	go func() {
		c := official(n)
		_, err := c.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{Model: "glm"})
		failed <- err
	}()
	<-began
	stopped := make(chan error, 1)
	go func() {
		stop, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		stopped <- n.Stop(stop)
	}()
	apiError(t, <-failed, http.StatusServiceUnavailable, "")
	close(release)
	require.NoError(t, <-stopped)
}
