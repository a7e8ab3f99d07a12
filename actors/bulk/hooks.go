package bulk

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

const (
	tellingMax = 64               // webhooks under way on a node; the timers of those beyond repeat them
	toldWithin = 30 * time.Second // the outcome of a try is journaled within, or it is tried again
)

// event is the body of a webhook, as OpenAI's clients read it.
type event struct {
	ID        string    `json:"id"`
	Object    string    `json:"object"`
	CreatedAt int64     `json:"created_at"`
	Type      string    `json:"type"`
	Data      eventData `json:"data"`
}

type eventData struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant,omitempty"` // whose batch it is; absent: the default tenant's
}

// EventID is the id of the event of a batch's end: the same at every try, to every receiver.
func EventID(batch string) string { return "evt_" + derived("event", batch) }

// signedFor is whose secret signs what a receiver hears: the tenant's own at its callback_url, the operator's ("") at the configured ones,
// which hear of all tenants' batches.
func (o *Options) signedFor(id string, s *State, url string) string {
	if url != s.Header.CallbackURL || slices.Contains(o.Hooks, url) {
		return ""
	}
	return tenant.Of(id)
}

// body builds what is posted for a final batch. It is pure, and the same at every try.
func body(id string, s *State) ([]byte, error) {
	data := eventData{ID: tenant.Bare(id)}
	if whose := tenant.Of(id); whose != tenant.Default {
		data.Tenant = whose
	}
	return json.Marshal(event{ID: EventID(id), Object: "event", CreatedAt: s.EndedAt.Unix(), Type: "batch." + s.Phase.Status(), Data: data})
}

// urls are those who are to hear of a batch's end.
func (o *Options) urls(s State) []string {
	if o.Post == nil {
		return nil
	}
	urls := slices.Clone(o.Hooks)
	if u := s.Header.CallbackURL; u != "" && !slices.Contains(urls, u) {
		urls = append(urls, u)
	}
	return urls
}

// Tell tells one receiver, once at a time. The batch, not this, remembers what is due.
func (b *Batches) Tell(id string, s State, hook int) {
	key := id + " " + strconv.Itoa(hook)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil || b.o.Post == nil || b.telling[key] || len(b.telling) >= tellingMax {
		return
	}
	b.telling[key] = true
	b.wg.Go(func() {
		defer func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.telling, key)
		}()
		b.tell(id, &s, hook)
	})
}

func (b *Batches) tell(id string, s *State, hook int) {
	h := s.Hooks[hook]
	text, err := body(id, s)
	if err == nil {
		err = b.o.Post(b.ctx, callback.Delivery{URL: h.URL, ID: EventID(id), Timestamp: b.o.Now(), Body: text, Tenant: b.o.signedFor(id, s, h.URL)})
	}
	if err != nil && b.ctx.Err() != nil {
		return // the node stops: this was no try
	}
	m := Told{Hook: hook, Try: h.Tries + 1}
	if err != nil {
		m.Error = task.FailureOf(id, err)
		m.Wait, m.GiveUp = b.o.Next(m.Try, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), toldWithin)
	defer cancel()
	if _, err := b.o.Router.Ask(ctx, Key(id), m); err != nil {
		b.o.Log.Warn("a webhook's outcome could not be recorded; it is sent again", "batch", id, "try", m.Try, "err", err)
	}
}
