package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
)

// Bounds of one call.
const (
	callMax   = 4 * time.Second // then its outcome is unknown
	answerMax = 16 << 20        // bytes
)

// Peer is a node as clients see it.
type Peer struct {
	Name, URL string
	Key       string // an API key to show; "": none
}

// client calls nodes. Every goroutine may use the same one.
type client struct {
	http *http.Client
	key  string
}

func newClient(key string) *client {
	return &client{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 5 * time.Second}}, key}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// SpecOf is a task that Echo works on for a while; some fail at first. Everything is in the id and the body, so that
// the same body is sent again byte for byte.
func SpecOf(id string, body int) []byte {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", id, body)
	n := h.Sum32()
	latency := []int{0, 5, 20, 80, 200, 1500}[n%6]
	directives := fmt.Sprintf("latency=%dms", latency)
	if n/6%10 == 0 {
		directives += " fail=1 kind=unavailable"
	}
	b, err := json.Marshal(map[string]any{"task_id": id, "prompt": infer.EchoMark + directives + "\n" + TextOf(id, body)})
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}

// shown is what any answer about a task has in common.
type shown struct {
	State   task.State `json:"state"`
	Version uint64     `json:"version"`
	Answer  string     `json:"answer"`
}

// do makes one call: status 0 when there was no whole answer.
func (c *client) do(ctx context.Context, method, url string, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	req.GetBody = nil // the transport must not send it again by itself: the recorder would see one call
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return 0, nil, err
	}
	return res.StatusCode, answer, nil
}

// call carries out an op and fills in what came of it. An error is an answer that no client should ever get.
func (c *client) call(ctx context.Context, p Peer, o *Op, now func() time.Duration) error {
	path, method, body := "/v1/tasks/"+url.PathEscape(o.ID), http.MethodGet, []byte(nil)
	switch o.Verb {
	case Submit:
		path, method, body = "/v1/tasks", http.MethodPost, SpecOf(o.ID, o.Body)
	case Cancel:
		path, method = path+"/cancel", http.MethodPost
	}
	o.Node, o.Call = p.Name, now()
	status, answer, err := c.do(ctx, method, p.URL+path, body)
	o.Return = now()
	if err != nil {
		o.Detail = err.Error()
		return nil
	}
	if err := outcome(o, status, answer); err != nil {
		o.Outcome, o.Detail = Unknown, strconv.Itoa(status)+" "+cut(answer)
		return fmt.Errorf("%s %s of %s answered %d: %w: %s", o.Verb, o.ID, p.Name, status, err, cut(answer))
	}
	return nil
}

// outcome reads an answer.
func outcome(o *Op, status int, answer []byte) error {
	switch {
	case o.Verb == Submit && status == http.StatusCreated, o.Verb != Submit && status == http.StatusOK:
		o.Outcome = Done
	case o.Verb == Submit && status == http.StatusOK:
		o.Outcome = Existed
	case o.Verb != Get && status == http.StatusConflict:
		o.Outcome = Conflict
	case o.Verb != Submit && status == http.StatusNotFound:
		o.Outcome = Missing
	case status == http.StatusTooManyRequests, status >= 500:
		o.Detail = strconv.Itoa(status) + " " + cut(answer)
	default:
		return fmt.Errorf("no client should get that")
	}
	if o.Outcome != Done && o.Outcome != Existed {
		return nil
	}
	var s shown
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	if s.Version == 0 || s.State == task.None {
		return fmt.Errorf("it names no state and version")
	}
	o.State, o.Version, o.Text = s.State, s.Version, s.Answer
	return nil
}

// getJSON reads a document; an error says why there is none.
func (c *client) getJSON(ctx context.Context, url string, v any) error {
	status, answer, err := c.do(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s: %d %s", url, status, cut(answer))
	}
	return json.Unmarshal(answer, v)
}

func cut(b []byte) string { return string(bytes.TrimSpace(b[:min(len(b), 200)])) }

// final reads a task and its history. again is set when another try may tell more: the node has no answer now.
func (c *client) final(ctx context.Context, p Peer, id string) (f Final, again bool, err error) {
	path := p.URL + "/v1/tasks/" + url.PathEscape(id)
	status, answer, err := c.do(ctx, http.MethodGet, path, nil)
	switch {
	case err != nil:
		return f, true, err
	case status == http.StatusNotFound:
		return f, false, nil
	case status != http.StatusOK:
		return f, status >= 500 || status == http.StatusTooManyRequests, fmt.Errorf("%s: %d %s", path, status, cut(answer))
	}
	var s shown
	if err := json.Unmarshal(answer, &s); err != nil {
		return f, false, err
	}
	f = Final{Found: true, State: s.State, Version: s.Version, Text: s.Answer}
	if !s.State.Final() {
		return f, true, nil
	}
	var h struct {
		Events []Fact `json:"events"`
	}
	if err := c.getJSON(ctx, path+"/events", &h); err != nil {
		return f, true, err
	}
	f.Events = h.Events
	return f, false, nil
}

// look reads the newest tasks, and makes an op of each.
func (c *client) look(ctx context.Context, p Peer, number int, now func() time.Duration) (ops []Op, err error) {
	began := now()
	status, answer, err := c.do(ctx, http.MethodGet, p.URL+"/v1/tasks?limit="+strconv.Itoa(lookMax), nil)
	if err != nil || status >= 500 || status == http.StatusTooManyRequests {
		return nil, nil
	}
	var page struct {
		Tasks []struct {
			ID string `json:"task_id"`
			shown
		} `json:"tasks"`
	}
	if err := json.Unmarshal(answer, &page); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("list of %s answered %d: %s", p.Name, status, cut(answer))
	}
	for _, t := range page.Tasks {
		ops = append(ops, Op{Client: number, Node: p.Name, Verb: List, ID: t.ID, Call: began, Return: now(), Outcome: Done, State: t.State, Version: t.Version})
	}
	return ops, nil
}

// Bounds of lists.
const (
	lookMax  = 20     // tasks, while there is load
	pagesMax = 10_000 // of a full list
)

// list reads the ids of all tasks, page by page.
func (c *client) list(ctx context.Context, p Peer) (ids []string, err error) {
	cursor := ""
	for range pagesMax {
		q := url.Values{"limit": {"1000"}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		var page struct {
			Tasks []struct {
				ID string `json:"task_id"`
			} `json:"tasks"`
			Next string `json:"next_cursor"`
		}
		if err := c.getJSON(ctx, p.URL+"/v1/tasks?"+q.Encode(), &page); err != nil {
			return nil, err
		}
		for _, t := range page.Tasks {
			ids = append(ids, t.ID)
		}
		if cursor = page.Next; cursor == "" {
			return ids, nil
		}
	}
	return nil, fmt.Errorf("the list of %s has more than %d pages", p.Name, pagesMax)
}

// counts reads a node's tasks by state.
func (c *client) counts(ctx context.Context, p Peer) (map[string]int64, error) {
	var st struct {
		Tasks map[string]int64 `json:"tasks"`
	}
	return st.Tasks, c.getJSON(ctx, p.URL+"/v1/status", &st)
}
