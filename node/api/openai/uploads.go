package openai

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

func (s *server) uploadRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/uploads", s.createUpload)
	mux.HandleFunc("POST /v1/uploads/{id}/parts", s.addPart)
	mux.HandleFunc("POST /v1/uploads/{id}/complete", s.completeUpload)
	mux.HandleFunc("POST /v1/uploads/{id}/cancel", s.cancelUpload)
}

// uploadObject is an upload as OpenAI has it.
type uploadObject struct {
	ID        string      `json:"id"`
	Object    string      `json:"object"`
	Bytes     int64       `json:"bytes"`
	CreatedAt int64       `json:"created_at"`
	ExpiresAt int64       `json:"expires_at"`
	Filename  string      `json:"filename"`
	Purpose   string      `json:"purpose"`
	Status    string      `json:"status"`
	File      *fileObject `json:"file"`
}

type uploadRequest struct {
	Bytes        int64         `json:"bytes" doc:"How many the file will have."`
	Filename     string        `json:"filename" required:"false"`
	Mime         string        `json:"mime_type" required:"false"`
	Purpose      string        `json:"purpose"`
	ExpiresAfter *expiresAfter `json:"expires_after" required:"false"`
}

type completeRequest struct {
	Parts []string `json:"part_ids" doc:"In the order in which they make the file."`
	MD5   string   `json:"md5" required:"false" doc:"Of the whole file, in hexadecimal."`
}

type uploadPart struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	CreatedAt int64  `json:"created_at"`
	UploadID  string `json:"upload_id"`
}

func uploadOf(u file.UploadInfo) uploadObject {
	o := uploadObject{ID: tenant.Bare(u.ID), Object: "upload", Bytes: u.Bytes, CreatedAt: u.CreatedAt.Unix(), ExpiresAt: u.ExpiresAt.Unix(),
		Filename: u.Filename, Purpose: u.Purpose, Status: string(u.Status)}
	switch u.Status {
	case file.Completing: // clients know no such state
		o.Status = string(file.Pending)
	case file.Completed:
		f := fileOf(*u.File)
		o.File = &f
	}
	return o
}

func (s *server) createUpload(w http.ResponseWriter, r *http.Request) {
	var q uploadRequest
	err := s.decode(w, r, &q)
	o := file.UploadOptions{PutOptions: file.PutOptions{Filename: q.Filename, Purpose: q.Purpose}, Mime: q.Mime, Bytes: q.Bytes}
	if err == nil && q.ExpiresAfter != nil {
		o.ExpiresAfter, err = expiry(q.ExpiresAfter.Anchor, strconv.FormatInt(q.ExpiresAfter.Seconds, 10))
	}
	var key string
	if err == nil {
		key, err = idempotencyKey(r)
	}
	s.answerUpload(w, r, err, func() (file.UploadInfo, error) {
		if key == "" {
			return s.Files.OpenUpload(r.Context(), o)
		}
		return s.Files.OpenUploadOnce(r.Context(), o, key)
	})
}

func (s *server) completeUpload(w http.ResponseWriter, r *http.Request) {
	var q completeRequest
	err := s.decode(w, r, &q)
	s.answerUpload(w, r, err, func() (file.UploadInfo, error) {
		return s.Files.CompleteUpload(r.Context(), r.PathValue("id"), q.Parts, q.MD5)
	})
}

func (s *server) cancelUpload(w http.ResponseWriter, r *http.Request) {
	s.answerUpload(w, r, nil, func() (file.UploadInfo, error) { return s.Files.CancelUpload(r.Context(), r.PathValue("id")) })
}

func (s *server) answerUpload(w http.ResponseWriter, r *http.Request, err error, do func() (file.UploadInfo, error)) {
	var u file.UploadInfo
	if err == nil {
		u, err = do()
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, uploadOf(u))
}

func (s *server) addPart(w http.ResponseWriter, r *http.Request) {
	release, ok := s.hold(w, r)
	if !ok {
		return
	}
	defer release()
	id := r.PathValue("id")
	var p file.Part
	body, stop := s.timed(w, r)
	defer stop()
	f, err := openForm(r.Header, body)
	if err == nil {
		err = f.read("data", func(_ string, content io.Reader) (err error) {
			p, err = s.Files.AddPart(r.Context(), id, content)
			return err
		})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, uploadPart{tenant.Bare(p.ID), "upload.part", p.CreatedAt.Unix(), id})
}

// decode reads a JSON body.
func (s *server) decode(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := s.readJSON(w, r)
	if err != nil {
		return err
	}
	err = json.Unmarshal(b, v)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return Invalid(wrong.Field, "invalid_type", "Invalid type for '%s': a %s cannot be it.", wrong.Field, wrong.Value)
	}
	if err != nil {
		return Invalid("", "", "We could not parse the JSON body of your request: %v.", err)
	}
	return nil
}
