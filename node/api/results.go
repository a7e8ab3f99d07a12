package api

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Bounds of one page of results: what is read from the service at once, encoded, and then
// sent while nothing of the service is held.
const (
	resultsPageLines = 256
	resultsPageBytes = 1 << 20
	resultsPageScan  = 4096 // records looked at, the filtered ones too
)

// CursorTrailer names the HTTP trailer with the cursor after the last result.
const CursorTrailer = "Autoglm-Cursor"

// results streams final tasks, in the order in which they ended, as NDJSON.
func (s *Server) results(w http.ResponseWriter, r *http.Request) {
	f, err := resultFilterOf(r.URL.Query())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	release, ok := s.stream(w, r)
	if !ok {
		return
	}
	defer release()
	cursor := f.cursor
	page, cursor, err := s.page(r, f, cursor)
	if err != nil { // nothing is sent yet: a bad cursor gets its status
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Trailer", CursorTrailer)
	out := &lineWriter{w: w, rc: http.NewResponseController(w), timeout: s.lim.WriteTimeout}
	quiet := time.Now() // since when no line was sent
	for {
		if page.lines > 0 || page.end && !f.follow || !out.begun || time.Since(quiet) >= s.lim.Heartbeat {
			if page.lines == 0 && out.begun && f.follow {
				out.add(wire.Result{Cursor: cursor})
			}
			out.buf.Write(page.text.Bytes())
			quiet = time.Now()
			if out.flush() != nil {
				return
			}
		}
		if page.end && !f.follow {
			break
		}
		if page.end && !s.pause(r, s.lim.ResultsPoll) {
			break
		}
		if page, cursor, err = s.page(r, f, cursor); err != nil {
			s.log.Warn("results broke off", "request_id", requestID(r.Context()), "trace_id", trace.From(r.Context()).ID(), "err", err)
			panic(http.ErrAbortHandler) // a cut stream: the client goes on from its cursor
		}
	}
	w.Header().Set(CursorTrailer, cursor)
}

// pause waits; false when the client or the server is going away.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.closing:
		return false
	case <-r.Context().Done():
		return false
	}
}

type resultPage struct {
	text  bytes.Buffer
	lines int
	end   bool // there are no more now
}

// page encodes the results after cursor. Its last line carries the cursor after it.
func (s *Server) page(r *http.Request, f *resultFilter, cursor string) (*resultPage, string, error) {
	p := &resultPage{}
	var last *wire.Result
	scanned := 0
	full := false
	walk := s.svc.Results
	if f.batch != "" {
		walk = func(ctx context.Context, cursor string, each func(Item) bool) (string, error) {
			return s.svc.BatchResults(ctx, f.batch, cursor, each)
		}
	}
	next, err := walk(r.Context(), cursor, func(it Item) bool {
		scanned++
		if f.match(it.Record) {
			if last != nil {
				writeJSON(&p.text, last)
			}
			res := wire.ResultOf(it.ID, it.Record)
			if f.prompt && it.Record.Spec != nil {
				res.Prompt = result.Asked(it.Record.Spec)
			}
			last = &res
			p.lines++
		}
		full = p.lines >= resultsPageLines || p.text.Len() >= resultsPageBytes || scanned >= resultsPageScan
		return !full
	})
	if err != nil {
		return nil, cursor, err
	}
	if last != nil {
		last.Cursor = next
		writeJSON(&p.text, last)
	}
	p.end = !full
	return p, next, nil
}

type resultFilter struct {
	state    task.State // None: any final one
	model    string
	batch    string
	metadata map[string]string
	cursor   string
	follow   bool
	prompt   bool // with each result
}

func resultFilterOf(q url.Values) (f *resultFilter, err error) {
	f = &resultFilter{model: q.Get("model"), batch: q.Get("batch"), cursor: q.Get("cursor")}
	f.metadata, err = metadataOf(q, map[string]bool{"state": true, "model": true, "batch": true, "cursor": true, "follow": true, "prompt": true})
	if err != nil {
		return nil, err
	}
	if raw := q.Get("state"); raw != "" {
		var ok bool
		if f.state, ok = task.ParseState(raw); !ok || !f.state.Final() {
			return nil, invalid("state", "is %q: use completed, failed or cancelled", raw)
		}
	}
	for name, flag := range map[string]*bool{"follow": &f.follow, "prompt": &f.prompt} {
		if raw := q.Get(name); raw != "" {
			if *flag, err = strconv.ParseBool(raw); err != nil {
				return nil, invalid(name, "is %q: use true or false", raw)
			}
		}
	}
	return f, nil
}

func (f *resultFilter) match(r *task.Record) bool {
	if f.state != task.None && r.State != f.state {
		return false
	}
	if r.Spec == nil {
		return f.model == "" && len(f.metadata) == 0
	}
	if f.model != "" && r.Spec.Model != f.model {
		return false
	}
	for k, v := range f.metadata {
		if r.Spec.Metadata[k] != v {
			return false
		}
	}
	return true
}
