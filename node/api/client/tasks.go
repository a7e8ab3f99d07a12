package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// pollMax is one long poll of Wait.
const pollMax = time.Minute

// NewID makes an id for a task: a UUIDv7.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

func taskPath(id, rest string) string { return "/v1/tasks/" + url.PathEscape(id) + rest }

// Submit makes one task durable. It sets spec.ID when that is empty.
func (c *Client) Submit(ctx context.Context, spec *task.Spec) (wire.Submitted, error) {
	made := spec.ID == ""
	if made {
		spec.ID = NewID()
	}
	var out wire.Submitted
	err := c.call(ctx, "client.submit", http.MethodPost, "/v1/tasks", spec, &out)
	if made {
		out.Existed = false // it can only be an earlier try of this call
	}
	return out, err
}

// Get returns a task as it stands.
func (c *Client) Get(ctx context.Context, id string) (*wire.Task, error) {
	out := new(wire.Task)
	if err := c.call(ctx, "client.get", http.MethodGet, taskPath(id, ""), nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Wait returns a task once it is final, or as it stands after at most d; d of 0 waits
// until ctx ends.
func (c *Client) Wait(ctx context.Context, id string, d time.Duration) (*wire.Task, error) {
	until := time.Now().Add(d)
	for {
		poll := pollMax
		if d > 0 {
			poll = max(0, min(poll, time.Until(until)))
		}
		out := new(wire.Task)
		path := taskPath(id, "?wait="+poll.Round(time.Millisecond).String())
		if err := c.call(ctx, "client.wait", http.MethodGet, path, nil, out); err != nil {
			return nil, err
		}
		if out.State.Final() || d > 0 && !time.Now().Before(until) {
			return out, nil
		}
	}
}

// Query filters List.
type Query struct {
	State    task.State // None: any
	Model    string
	Metadata map[string]string
	Batch    string // Results: only the lines of this batch
	Prompt   bool   // Results: what was asked, too
	Limit    int    // 0: the server's default
	Cursor   string
}

func (q Query) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.State != task.None {
		v.Set("state", q.State.String())
	}
	set("model", q.Model)
	set("batch", q.Batch)
	set("cursor", q.Cursor)
	if q.Prompt {
		v.Set("prompt", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	for key, value := range q.Metadata {
		v.Set("metadata."+key, value)
	}
	return v
}

// List returns one page of tasks.
func (c *Client) List(ctx context.Context, q Query) (*wire.List, error) {
	out := new(wire.List)
	if err := c.call(ctx, "client.list", http.MethodGet, "/v1/tasks?"+q.values().Encode(), nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Cancel makes a pending or running task cancelled; one that ended otherwise is a Conflict.
func (c *Client) Cancel(ctx context.Context, id, reason string) (*wire.Task, error) {
	out := new(wire.Task)
	if err := c.call(ctx, "client.cancel", http.MethodPost, taskPath(id, "/cancel"), wire.Cancel{Reason: reason}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Delete takes a final task away for good.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.call(ctx, "client.delete", http.MethodDelete, taskPath(id, ""), nil, nil)
}

// Events returns a task's history after a version; 0 for all.
func (c *Client) Events(ctx context.Context, id string, after uint64) (*wire.History, error) {
	out := new(wire.History)
	path := taskPath(id, "/events?after="+strconv.FormatUint(after, 10))
	if err := c.call(ctx, "client.events", http.MethodGet, path, nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Explain says what happened to a task, and why it is not further.
func (c *Client) Explain(ctx context.Context, id string) (*wire.Explanation, error) {
	out := new(wire.Explanation)
	if err := c.call(ctx, "client.explain", http.MethodGet, taskPath(id, "/explain"), nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Status says how the node is.
func (c *Client) Status(ctx context.Context) (*wire.Status, error) {
	out := new(wire.Status)
	if err := c.call(ctx, "client.status", http.MethodGet, "/v1/status", nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Health asks once whether the node takes work, and what it waits for if not.
func (c *Client) Health(ctx context.Context) (h wire.Health, err error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	base := c.servers.current()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return h, fault.New(fault.Invalid, "client.health", base, "%w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return h, away(ctx, base, "client.health", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerMax)).Decode(&h); err != nil || h.Status == "" {
		return h, fault.New(wire.KindOfStatus(resp.StatusCode), "client.health", base, "the answer is not a node's: %s", resp.Status)
	}
	return h, nil
}

// Cluster says who is there and who holds which shard.
func (c *Client) Cluster(ctx context.Context) (*wire.Cluster, error) {
	out := new(wire.Cluster)
	if err := c.call(ctx, "client.cluster", http.MethodGet, "/v1/cluster", nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ClusterEvents returns the newest decisions of the coordinator, at most limit, oldest first.
func (c *Client) ClusterEvents(ctx context.Context, limit int) (*wire.ClusterEvents, error) {
	out := new(wire.ClusterEvents)
	if err := c.call(ctx, "client.events", http.MethodGet, "/v1/cluster/events?limit="+strconv.Itoa(limit), nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Drain makes a node give its replicas and leads away, or, with Undo, take part again. Cluster tells how far it is.
func (c *Client) Drain(ctx context.Context, d wire.Drain) error {
	return c.call(ctx, "client.drain", http.MethodPost, "/v1/cluster/drain", d, new(wire.Drain))
}

// Backup makes the node write a consistent copy of its data into dir, a new folder on the
// node's machine: the first of the client's. It is tried once, for a repeat would find the folder, and has no time-out
// but ctx: copying may take long. The warning says what the copy may lack, "" where nothing is known to be missing.
func (c *Client) Backup(ctx context.Context, dir string) (warning string, err error) {
	b, err := json.Marshal(wire.Backup{Dir: dir})
	if err != nil {
		return "", fmt.Errorf("client.backup: %w", err)
	}
	resp, err := c.send(ctx, c.servers.bases[0], "client.backup", http.MethodPost, "/v1/admin/backup", "application/json", bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var made wire.Backup
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil {
		return "", fault.New(fault.Unavailable, "client.backup", dir, "the answer cannot be read: %w", err)
	}
	return made.Warning, nil
}
