package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Batches is what the routes of batches need of the node: a *bulk.Batches.
type Batches interface {
	Create(ctx context.Context, id string, h *bulk.Header) (bulk.State, error)
	Get(ctx context.Context, id string) (bulk.State, error)
	List(ctx context.Context, after string, limit int) (page []bulk.Item, more bool, err error)
	Say(ctx context.Context, id string, msg any) (bulk.State, error)
	Retry(ctx context.Context, id, of string, again bulk.Again) (bulk.State, error)
	Used(ctx context.Context, file string) (batch string, err error) // by one that has not ended
}

const (
	batchesLimit      = 20  // of a page, when a client names none
	idempotencyKeyMax = 255 // bytes
)

func (s *server) batchRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/batches", s.createBatch)
	mux.HandleFunc("GET /v1/batches", s.listBatches)
	mux.HandleFunc("GET /v1/batches/{id}", s.getBatch)
	mux.HandleFunc("POST /v1/batches/{id}/cancel", s.sayToBatch(bulk.Cancel{}))
	mux.HandleFunc("POST /v1/batches/{id}/pause", s.sayToBatch(bulk.Pause{On: true}))
	mux.HandleFunc("POST /v1/batches/{id}/resume", s.sayToBatch(bulk.Pause{}))
	mux.HandleFunc("POST /v1/batches/{id}/priority", s.prioritizeBatch)
	mux.HandleFunc("POST /v1/batches/{id}/retry", s.retryBatch)
}

// batchRequest is what creates a batch. The fields after the first five are no part of OpenAI's API.
type batchRequest struct {
	InputFileID   string            `json:"input_file_id"`
	Endpoint      string            `json:"endpoint"`
	Window        string            `json:"completion_window" doc:"24h, or another duration from 1s to 365d."`
	Metadata      map[string]string `json:"metadata" required:"false"`
	OutputExpires *expiresAfter     `json:"output_expires_after" required:"false"`
	MixedModels   bool              `json:"mixed_models" required:"false" doc:"Lines may name several models."`
	CallbackURL   string            `json:"callback_url" required:"false" doc:"Gets the batch's webhook, too."`
	Priority      *task.Priority    `json:"priority" required:"false" minimum:"0" maximum:"9" doc:"Of its lines: 0 runs first, 9 last; high is 2, normal 5, low 8."`
}

type expiresAfter struct {
	Anchor  string `json:"anchor" enum:"created_at"`
	Seconds int64  `json:"seconds"`
}

func (q *batchRequest) header() (*bulk.Header, error) {
	h := &bulk.Header{InputFile: q.InputFileID, Endpoint: q.Endpoint, Window: q.Window, Metadata: q.Metadata, MixedModels: q.MixedModels,
		CallbackURL: q.CallbackURL, Priority: q.Priority}
	for _, f := range []struct{ name, value string }{{"input_file_id", q.InputFileID}, {"endpoint", q.Endpoint}, {"completion_window", q.Window}} {
		if f.value == "" {
			return nil, Invalid(f.name, "missing_required_parameter", "Missing required parameter: '%s'.", f.name)
		}
	}
	if e := q.OutputExpires; e != nil {
		if e.Anchor != "created_at" {
			return nil, Invalid("output_expires_after.anchor", "", "'output_expires_after.anchor' is %q: only created_at is known", e.Anchor)
		}
		if e.Seconds <= 0 || e.Seconds > int64((1<<62)/time.Second) {
			return nil, Invalid("output_expires_after.seconds", "", "'output_expires_after.seconds' is %d: a number of seconds", e.Seconds)
		}
		h.OutputExpires = time.Duration(e.Seconds) * time.Second
	}
	return h, h.Validate()
}

// batchObject is a batch as OpenAI has it; what follows metadata is our own.
type batchObject struct {
	ID           string            `json:"id"`
	Object       string            `json:"object"`
	Endpoint     string            `json:"endpoint"`
	Model        *string           `json:"model"`
	Errors       *batchErrors      `json:"errors"`
	InputFileID  string            `json:"input_file_id"`
	Window       string            `json:"completion_window"`
	Status       string            `json:"status"`
	OutputFileID *string           `json:"output_file_id"`
	ErrorFileID  *string           `json:"error_file_id"`
	CreatedAt    int64             `json:"created_at"`
	InProgressAt *int64            `json:"in_progress_at"`
	ExpiresAt    *int64            `json:"expires_at"`
	FinalizingAt *int64            `json:"finalizing_at"`
	CompletedAt  *int64            `json:"completed_at"`
	FailedAt     *int64            `json:"failed_at"`
	ExpiredAt    *int64            `json:"expired_at"`
	CancellingAt *int64            `json:"cancelling_at"`
	CancelledAt  *int64            `json:"cancelled_at"`
	Counts       batchCounts       `json:"request_counts"`
	Usage        batchUsage        `json:"usage"`
	Metadata     map[string]string `json:"metadata"`

	Paused      bool           `json:"paused,omitempty"`
	Priority    *task.Priority `json:"priority,omitempty"`
	MixedModels bool           `json:"mixed_models,omitempty"`
	CallbackURL string         `json:"callback_url,omitempty"`
	RetryOf     string         `json:"retry_of,omitempty"`
}

type batchErrors struct {
	Object string         `json:"object"`
	Data   []batchProblem `json:"data"`
}

type batchProblem struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param"`
	Line    *uint64 `json:"line"`
}

type batchCounts struct {
	Total     uint64 `json:"total"`
	Completed uint64 `json:"completed"`
	Failed    uint64 `json:"failed"`
}

type batchUsage struct {
	InputTokens  int64 `json:"input_tokens"`
	InputDetails struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"input_tokens_details"`
	OutputTokens  int64 `json:"output_tokens"`
	OutputDetails struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	TotalTokens int64 `json:"total_tokens"`
}

func batchOf(id string, s bulk.State) batchObject {
	h := s.Header
	o := batchObject{ID: id, Object: "batch", Endpoint: h.Endpoint, Model: some(s.Model), InputFileID: tenant.Bare(h.InputFile), Window: h.Window, Status: s.Phase.Status(),
		CreatedAt: s.CreatedAt.Unix(), InProgressAt: unix(s.InProgressAt), ExpiresAt: unix(s.ExpiresAt), Metadata: h.Metadata,
		CancellingAt: unix(s.CancelledAt), Paused: s.Paused, Priority: s.Priority, MixedModels: h.MixedModels, CallbackURL: h.CallbackURL, RetryOf: tenant.Bare(h.RetryOf)}
	if s.CancelledAt.IsZero() {
		o.FinalizingAt = unix(s.StoppedAt)
	}
	switch s.Phase {
	case bulk.Completed:
		o.CompletedAt = unix(s.EndedAt)
	case bulk.Failed:
		o.FailedAt = unix(s.EndedAt)
	case bulk.Expired:
		o.ExpiredAt = unix(s.EndedAt)
	case bulk.Cancelled:
		o.CancelledAt = unix(s.EndedAt)
	}
	if s.Bytes(bulk.PartOutput) > 0 {
		o.OutputFileID = some(bulk.FileID(id, bulk.PartOutput))
	}
	if s.Bytes(bulk.PartErrors) > 0 {
		o.ErrorFileID = some(bulk.FileID(id, bulk.PartErrors))
	}
	o.Counts.Total, o.Counts.Completed, o.Counts.Failed = s.Counts()
	o.Usage.InputTokens, o.Usage.OutputTokens, o.Usage.TotalTokens = s.PromptTokens, s.OutputTokens, s.PromptTokens+s.OutputTokens
	if len(s.Errors) > 0 {
		o.Errors = &batchErrors{Object: "list"}
		for _, p := range s.Errors {
			x := batchProblem{Code: p.Code, Message: p.Message, Param: some(p.Param)}
			if p.Line > 0 {
				x.Line = &p.Line
			}
			o.Errors.Data = append(o.Errors.Data, x)
		}
	}
	return o
}

func unix(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.Unix()
	return &n
}

func (s *server) createBatch(w http.ResponseWriter, r *http.Request) {
	var q batchRequest
	id, err := newBatchID(r)
	if err == nil {
		err = s.batchBody(w, r, &q)
	}
	var h *bulk.Header
	if err == nil {
		h, err = q.header()
	}
	s.answerBatch(w, r, id, err, func() (bulk.State, error) {
		st, err := s.Batches.Create(r.Context(), id, h)
		if fault.KindOf(err) == fault.NotFound {
			err = NotFound("input_file_id", "%s", fault.Sentence(err))
		}
		return st, err
	})
}

// newBatchID is a new id, or the one of the client's idempotency key.
func newBatchID(r *http.Request) (string, error) {
	switch key, err := idempotencyKey(r); {
	case err != nil:
		return "", err
	case key == "":
		return bulk.NewID(), nil
	default:
		return bulk.IDOf(r.URL.Path + " " + key), nil
	}
}

// idempotencyKey is what the client of a request knows it by; "" for none.
func idempotencyKey(r *http.Request) (string, error) {
	key := r.Header.Get("Idempotency-Key")
	if len(key) > idempotencyKeyMax {
		return "", Invalid("Idempotency-Key", "", "the header Idempotency-Key has %d bytes, the limit is %d", len(key), idempotencyKeyMax)
	}
	return key, nil
}

// answerBatch answers with what f returns, unless something is wrong already.
func (s *server) answerBatch(w http.ResponseWriter, r *http.Request, id string, err error, f func() (bulk.State, error)) {
	var st bulk.State
	if err == nil {
		st, err = f()
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, batchOf(id, st))
}

func (s *server) getBatch(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s.answerBatch(w, r, id, nil, func() (bulk.State, error) { return s.Batches.Get(r.Context(), id) })
}

// sayToBatch is a route that sends a batch a message. Some clients send an empty object as its body.
func (s *server) sayToBatch(msg any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		s.answerBatch(w, r, id, s.batchMay(w, r, &struct{}{}), func() (bulk.State, error) { return s.Batches.Say(r.Context(), id, msg) })
	}
}

type priorityRequest struct {
	Priority *task.Priority `json:"priority"`
}

func (s *server) prioritizeBatch(w http.ResponseWriter, r *http.Request) {
	var q priorityRequest
	id := r.PathValue("id")
	err := s.batchBody(w, r, &q)
	if err == nil && q.Priority == nil {
		err = Invalid("priority", "missing_required_parameter", "Missing required parameter: 'priority'.")
	}
	s.answerBatch(w, r, id, err, func() (bulk.State, error) {
		return s.Batches.Say(r.Context(), id, bulk.Prioritize{Priority: *q.Priority})
	})
}

func (s *server) retryBatch(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Window   string         `json:"completion_window"`
		Priority *task.Priority `json:"priority"`
	}
	id, err := newBatchID(r)
	if err == nil {
		err = s.batchMay(w, r, &q)
	}
	s.answerBatch(w, r, id, err, func() (bulk.State, error) {
		return s.Batches.Retry(r.Context(), id, r.PathValue("id"), bulk.Again{Window: q.Window, Priority: q.Priority})
	})
}

func (s *server) listBatches(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit := batchesLimit
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			WriteError(w, r, Invalid("limit", "", "'limit' is %q: use 1 to %d", text, bulk.ListMax))
			return
		}
		limit = n
	}
	page, more, err := s.Batches.List(r.Context(), query.Get("after"), limit)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list := pageOf[batchObject]{Object: "list", Data: make([]batchObject, len(page)), HasMore: more}
	for i, x := range page {
		list.Data[i] = batchOf(tenant.Bare(x.ID), x.State)
	}
	if n := len(page); n > 0 {
		list.FirstID, list.LastID = &list.Data[0].ID, &list.Data[n-1].ID
	}
	writeJSON(w, http.StatusOK, list)
}

// batchBody reads a JSON body, and refuses fields that it would ignore: they may be misspelt.
func (s *server) batchBody(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := s.readJSON(w, r)
	if err != nil {
		return err
	}
	return strictly(b, v)
}

// batchMay is batchBody where a request may have no body.
func (s *server) batchMay(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := s.readJSON(w, r)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return err
	}
	return strictly(b, v)
}

func strictly(b []byte, v any) (err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err = dec.Decode(v); err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("something follows its JSON")
	}
	if _, ok := errors.AsType[*fault.Error](err); ok { // of a field that reads itself, which says what is right
		return err
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return Invalid(wrong.Field, "invalid_type", "Invalid type for '%s': a %s cannot be it.", wrong.Field, wrong.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		return Invalid(name, "unknown_parameter", "Unknown parameter: '%s'.", name)
	}
	return Invalid("", "", "We could not parse the JSON body of your request: %v.", err)
}
