package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// events answers a task's history as JSON, or follows it as server-sent events.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	after, err := afterOf(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		s.follow(w, r, id, after)
		return
	}
	facts, err := s.svc.Events(r.Context(), id, after)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	h := wire.History{ID: id, Events: make([]wire.Event, len(facts))}
	for i, f := range facts {
		h.Events[i] = wire.Event{Version: after + uint64(i) + 1, Fact: f}
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, h)
}

// afterOf returns the version that the client has: Last-Event-ID, or ?after=.
func afterOf(r *http.Request) (uint64, error) {
	query := r.URL.Query()
	if _, err := metadataOf(query, map[string]bool{"after": true}); err != nil {
		return 0, err
	}
	name, raw := "Last-Event-ID", r.Header.Get("Last-Event-ID")
	if raw == "" {
		name, raw = "after", query.Get("after")
	}
	if raw == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(raw, 10, 64)
	if err != nil {
		return 0, invalid(name, "is %q: use the version of an event", raw)
	}
	return v, nil
}

// follow sends events as they happen, until the task is final and its callback is through.
// A client that has them all is answered 204, which ends a browser's reconnecting.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, id string, after uint64) {
	release, ok := s.stream(w, r)
	if !ok {
		return
	}
	defer release()
	changed, stop, err := s.svc.Watch(r.Context(), id)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer stop()
	var rec task.Record // what the events read so far add up to
	if rec, err = s.replay(r, id, rec, func(wire.Event) {}); err != nil {
		s.refuse(w, r, err)
		return
	}
	if ended(&rec) && rec.Version <= after {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	out := &sseWriter{w: w, rc: http.NewResponseController(w), timeout: s.lim.WriteTimeout}
	rec = task.Record{}
	beat := time.NewTicker(s.lim.Heartbeat)
	defer beat.Stop()
	for {
		rec, err = s.replay(r, id, rec, func(e wire.Event) {
			if e.Version > after {
				out.event(e)
			}
		})
		if out.flush() != nil || err != nil || ended(&rec) {
			return // on an error the client reconnects with Last-Event-ID, and is told then
		}
		select {
		case <-changed:
		case <-beat.C:
			out.comment("still " + rec.State.String())
		case <-s.closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// replay folds the events after rec's version into rec and calls f for each.
func (s *Server) replay(r *http.Request, id string, rec task.Record, f func(wire.Event)) (task.Record, error) {
	facts, err := s.svc.Events(r.Context(), id, rec.Version)
	if err != nil {
		return rec, err
	}
	for _, fact := range facts {
		next, err := rec.Apply(fact)
		if err != nil {
			return rec, fmt.Errorf("api.events %s: version %d: %w", id, rec.Version+1, err)
		}
		rec = next
		f(wire.Event{Version: rec.Version, Fact: fact})
	}
	return rec, nil
}

// ended tells whether nothing more can happen to the task.
func ended(r *task.Record) bool { return r.State.Final() && r.Callback != task.CallbackWaiting }

// sseWriter writes server-sent events in pieces that a client must take in time.
type sseWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	buf     []byte
	err     error
}

func (o *sseWriter) event(e wire.Event) {
	data, err := json.Marshal(e) // one line: JSON escapes newlines
	if err != nil {
		o.err = err
		return
	}
	o.buf = fmt.Appendf(o.buf, "id: %d\nevent: %s\ndata: %s\n\n", e.Version, e.Event, data)
}

func (o *sseWriter) comment(text string) { o.buf = fmt.Appendf(o.buf, ": %s\n\n", text) }

func (o *sseWriter) flush() error {
	if o.err != nil {
		return o.err
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(o.timeout))
	if len(o.buf) > 0 {
		_, o.err = o.w.Write(o.buf)
		o.buf = o.buf[:0]
	}
	if o.err == nil {
		o.err = o.rc.Flush()
	}
	_ = o.rc.SetWriteDeadline(time.Time{})
	return o.err
}
