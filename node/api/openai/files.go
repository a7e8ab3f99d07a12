package openai

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Files is what the routes of files and uploads need of the node: a *file.Library.
type Files interface {
	Receive(ctx context.Context, filename string) (*file.Incoming, error)
	ReceiveOnce(ctx context.Context, filename, key string) (*file.Incoming, error)
	Get(ctx context.Context, id string) (file.Info, error)
	List(ctx context.Context, q file.Query) (page []file.Info, more bool, err error)
	Delete(ctx context.Context, id string) error
	Open(ctx context.Context, id string, offset int64) (io.ReadCloser, file.Info, error)

	OpenUpload(ctx context.Context, o file.UploadOptions) (file.UploadInfo, error)
	OpenUploadOnce(ctx context.Context, o file.UploadOptions, key string) (file.UploadInfo, error)
	AddPart(ctx context.Context, upload string, r io.Reader) (file.Part, error)
	CompleteUpload(ctx context.Context, id string, parts []string, md5 string) (file.UploadInfo, error)
	CancelUpload(ctx context.Context, id string) (file.UploadInfo, error)
}

// copyBytes is a piece of a file's content on its way to a client.
const copyBytes = 64 << 10

func (s *server) fileRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/files", s.createFile)
	mux.HandleFunc("GET /v1/files", s.listFiles)
	mux.HandleFunc("GET /v1/files/{id}", s.getFile)
	mux.HandleFunc("DELETE /v1/files/{id}", s.deleteFile)
	mux.HandleFunc("GET /v1/files/{id}/content", s.fileContent)
}

// fileObject is a file as OpenAI has it. sha256 is our own.
type fileObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt *int64 `json:"expires_at,omitempty"`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose"`
	Status    string `json:"status"`
	SHA256    string `json:"sha256,omitempty"`
}

type fileDeleted struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Deleted bool   `json:"deleted"`
}

// pageOf is a page of a list as OpenAI has it.
type pageOf[T any] struct {
	Object  string  `json:"object"`
	Data    []T     `json:"data"`
	FirstID *string `json:"first_id"`
	LastID  *string `json:"last_id"`
	HasMore bool    `json:"has_more"`
}

func fileOf(in file.Info) fileObject {
	o := fileObject{ID: tenant.Bare(in.ID), Object: "file", Bytes: in.Bytes, CreatedAt: in.CreatedAt.Unix(), Filename: in.Filename, Purpose: in.Purpose,
		Status: string(file.Processed), SHA256: in.SHA256}
	if !in.ExpiresAt.IsZero() {
		at := in.ExpiresAt.Unix()
		o.ExpiresAt = &at
	}
	return o
}

// createFile streams a file into the cluster as it comes, and judges it when it knows what it is: some clients say
// the purpose after the file.
func (s *server) createFile(w http.ResponseWriter, r *http.Request) {
	release, ok := s.hold(w, r)
	if !ok {
		return
	}
	defer release()
	var in *file.Incoming
	defer func() {
		if in != nil {
			in.Drop() // unless it was kept
		}
	}()
	body, stop := s.timed(w, r)
	defer stop()
	f, err := openForm(r.Header, body)
	if err == nil {
		err = f.read("file", func(filename string, content io.Reader) (err error) {
			if in, err = s.receive(r, filename); err != nil {
				return err
			}
			return in.Fill(r.Context(), content)
		})
	}
	var o file.PutOptions
	if err == nil {
		o, err = optionsOf(f.fields)
	}
	var kept file.Info
	if err == nil {
		kept, err = in.Keep(r.Context(), o)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, fileOf(kept))
}

// receive begins the file of a request, or goes on with the one of its idempotency key.
func (s *server) receive(r *http.Request, filename string) (*file.Incoming, error) {
	key, err := idempotencyKey(r)
	switch {
	case err != nil:
		return nil, err
	case key == "":
		return s.Files.Receive(r.Context(), filename)
	}
	return s.Files.ReceiveOnce(r.Context(), filename, key)
}

// optionsOf reads what a form says of its file.
func optionsOf(fields map[string]string) (o file.PutOptions, err error) {
	either := func(name string) string { // one way or the other to write a nested field
		if v, ok := fields["expires_after["+name+"]"]; ok {
			return v
		}
		return fields["expires_after."+name]
	}
	if o.Purpose = fields["purpose"]; o.Purpose == "" {
		return o, Invalid("purpose", "missing_required_parameter", "Missing required parameter: 'purpose'.")
	}
	o.ExpiresAfter, err = expiry(either("anchor"), either("seconds"))
	return o, err
}

// expiry reads expires_after; both empty: never.
func expiry(anchor, seconds string) (time.Duration, error) {
	if anchor == "" && seconds == "" {
		return 0, nil
	}
	if anchor != "created_at" {
		return 0, Invalid("expires_after[anchor]", "", "'expires_after[anchor]' is %q: only created_at is known", anchor)
	}
	n, err := strconv.ParseInt(seconds, 10, 32)
	if err != nil || n <= 0 {
		return 0, Invalid("expires_after[seconds]", "", "'expires_after[seconds]' is %q: a number of seconds", seconds)
	}
	return time.Duration(n) * time.Second, nil
}

func (s *server) getFile(w http.ResponseWriter, r *http.Request) {
	in, err := s.Files.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, fileOf(in))
}

// grows refuses the deletion of a file that a batch still writes: what ends later would be nowhere to be read.
func (s *server) grows(ctx context.Context, id string) error {
	in, err := s.Files.Get(ctx, id)
	if err != nil || in.Of == nil {
		return err
	}
	batch := tenant.Bare(in.Of.Batch)
	b, err := s.Batches.Get(ctx, batch)
	if err == nil && !b.Phase.Final() {
		err = Conflict("File %s is written by %s, which has not ended: cancel it first, or wait.", id, batch)
	}
	return err
}

func (s *server) deleteFile(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if s.Batches != nil { // a batch whose input is gone could not go on
		batch, err := s.Batches.Used(r.Context(), id)
		if err == nil && batch != "" {
			err = Conflict("File %s is the input of %s, which has not ended: cancel it first, or wait.", id, tenant.Bare(batch))
		}
		if err == nil {
			err = s.grows(r.Context(), id)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
	}
	if err := s.Files.Delete(r.Context(), id); err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, fileDeleted{id, "file", true})
}

func (s *server) listFiles(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	q := file.Query{After: query.Get("after"), Limit: file.PageMax, Purpose: query.Get("purpose"), Order: file.Order(query.Get("order"))}
	if limit := query.Get("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil {
			WriteError(w, r, Invalid("limit", "", "'limit' is %q: use 1 to %d", limit, file.PageMax))
			return
		}
		q.Limit = n
	}
	page, more, err := s.Files.List(r.Context(), q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list := pageOf[fileObject]{Object: "list", Data: make([]fileObject, len(page)), HasMore: more}
	for i, in := range page {
		list.Data[i] = fileOf(in)
	}
	if n := len(page); n > 0 {
		list.FirstID, list.LastID = &list.Data[0].ID, &list.Data[n-1].ID
	}
	writeJSON(w, http.StatusOK, list)
}

// fileContent sends the bytes, whatever the client says that it accepts. Trouble before the first byte is an error; trouble after it
// cuts the connection, so that no client takes a part for the whole.
func (s *server) fileContent(w http.ResponseWriter, r *http.Request) {
	release, ok := s.hold(w, r)
	if !ok {
		return
	}
	defer release()
	content, in, err := s.Files.Open(r.Context(), r.PathValue("id"), 0)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer content.Close()
	buf := make([]byte, copyBytes)
	n, err := 0, error(nil)
	if r.Method != http.MethodHead {
		if n, err = content.Read(buf); err != nil && err != io.EOF {
			s.fail(w, r, err)
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": in.Filename}))
	if !in.Growing {
		h.Set("Content-Length", strconv.FormatInt(in.Bytes, 10))
	}
	if r.Method == http.MethodHead {
		return
	}
	rc := http.NewResponseController(w)
	for {
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
			if _, werr := w.Write(buf[:n]); werr != nil {
				return // the client is gone
			}
		}
		if err == io.EOF {
			_ = rc.SetWriteDeadline(time.Time{})
			return
		}
		if err != nil {
			s.Log.Warn("a file could not be read to its end", "file", in.ID, "err", err)
			panic(http.ErrAbortHandler)
		}
		if s.closed() {
			panic(http.ErrAbortHandler)
		}
		n, err = content.Read(buf)
	}
}

// hold takes a token for a long request; without one it has answered.
func (s *server) hold(w http.ResponseWriter, r *http.Request) (release func(), ok bool) {
	if s.Hold == nil {
		return func() {}, true
	}
	release, err := s.Hold(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return nil, false
	}
	return release, true
}

func (s *server) closed() bool {
	select {
	case <-s.Closing:
		return true
	default:
		return false
	}
}

// timed is a request's body that ends with an error when nothing comes for StreamIdle, and when the server closes. stop is to be
// called behind it.
func (s *server) timed(w http.ResponseWriter, r *http.Request) (body io.Reader, stop func()) {
	t := &timedBody{s: s, body: r.Body, rc: http.NewResponseController(w)}
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-s.Closing:
			_ = t.rc.SetReadDeadline(time.Now()) // a read under way ends
		case <-ended:
		}
	}()
	return t, func() {
		close(ended)
		<-gone
	}
}

type timedBody struct {
	s    *server
	body io.Reader
	rc   *http.ResponseController
}

// Read sets its deadline before it looks whether it should read at all, so that a deadline moved to now is never moved back.
func (t *timedBody) Read(b []byte) (int, error) {
	_ = t.rc.SetReadDeadline(time.Now().Add(t.s.StreamIdle))
	if t.s.closed() {
		return 0, errClosing
	}
	n, err := t.body.Read(b)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		if t.s.closed() {
			err = errClosing
		}
	default:
		_ = t.rc.SetReadDeadline(time.Time{}) // it would end the next request on this connection
	}
	return n, err
}

var errClosing = fault.New(fault.Unavailable, "openai.upload", "", "the node is stopping").WithRemedy("send the file again, to another node or later")
