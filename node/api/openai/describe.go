package openai

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/file"
)

// Describe adds the routes of files, uploads and batches to an OpenAPI document, with the types that they are read into
// and answered from.
func Describe(doc *huma.OpenAPI, d Deps) {
	s := scribe{doc}
	if d.Files != nil {
		s.files()
		s.uploads()
	}
	if d.Batches != nil {
		s.batches()
	}
}

type scribe struct{ doc *huma.OpenAPI }

var text = &huma.Schema{Type: "string"}

func (s scribe) of(v any) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: s.doc.Components.Schemas.Schema(reflect.TypeOf(v), true, "")}}
}

// add describes one route; a nil body takes none.
func (s scribe) add(name, method, path, summary string, body, answer map[string]*huma.MediaType, params ...*huma.Param) {
	op := &huma.Operation{OperationID: "openai-" + name, Method: method, Path: path, Tags: []string{"openai"}, Summary: summary, Parameters: params,
		Responses: map[string]*huma.Response{"200": {Description: "Done", Content: answer}, "default": {Description: "Refused, in OpenAI's words", Content: s.of(errorBody{})}}}
	if body != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: body}
	}
	s.doc.AddOperation(op)
}

func named(what string) *huma.Param {
	return &huma.Param{Name: "id", In: "path", Required: true, Description: "The " + what + "'s id.", Schema: text}
}

func query(name, about string, schema *huma.Schema) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: about, Schema: schema}
}

func paged(limit int) []*huma.Param {
	lowest, highest := 1.0, float64(limit)
	return []*huma.Param{query("after", "The last id of the page before.", text), query("limit", "Of a page.", &huma.Schema{Type: "integer", Minimum: &lowest, Maximum: &highest})}
}

// multipartOf is a multipart body with one part of bytes.
func multipartOf(part string, fields map[string]*huma.Schema, required ...string) map[string]*huma.MediaType {
	all := map[string]*huma.Schema{part: {Type: "string", Format: "binary"}}
	for name, f := range fields {
		all[name] = f
	}
	return map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{Type: "object", Properties: all, Required: append(required, part)}}}
}

func idempotent(means string) *huma.Param {
	return &huma.Param{Name: "Idempotency-Key", In: "header", Description: means, Schema: text}
}

func (s scribe) files() {
	one := s.of(fileObject{})
	fields := map[string]*huma.Schema{"purpose": text, "expires_after[anchor]": {Type: "string", Enum: []any{"created_at"}}, "expires_after[seconds]": {Type: "integer"}}
	s.add("create-file", "POST", "/v1/files", "Send a file, of any length", multipartOf("file", fields, "purpose"), one, idempotent("The same key and file give the same file: come back with it after a time-out."))
	s.add("files", "GET", "/v1/files", "List files", nil, s.of(pageOf[fileObject]{}), append(paged(file.PageMax), query("purpose", "Only files of this one.", text),
		query("order", "By when they were created.", &huma.Schema{Type: "string", Enum: []any{"asc", "desc"}}))...)
	s.add("file", "GET", "/v1/files/{id}", "What a file is", nil, one, named("file"))
	s.add("delete-file", "DELETE", "/v1/files/{id}", "Delete a file", nil, s.of(fileDeleted{}), named("file"))
	s.add("file-content", "GET", "/v1/files/{id}/content", "A file's bytes; the output of a batch that runs has what ended so far", nil,
		map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}, named("file"))
}

func (s scribe) uploads() {
	one := s.of(uploadObject{})
	s.add("create-upload", "POST", "/v1/uploads", "Begin a file that comes in parts", s.of(uploadRequest{}), one, idempotent("The same key and body give the same upload."))
	s.add("upload-part", "POST", "/v1/uploads/{id}/parts", "Send a part", multipartOf("data", nil), s.of(uploadPart{}), named("upload"))
	s.add("complete-upload", "POST", "/v1/uploads/{id}/complete", "Make a file of parts", s.of(completeRequest{}), one, named("upload"))
	s.add("cancel-upload", "POST", "/v1/uploads/{id}/cancel", "Drop an upload and its parts", nil, one, named("upload"))
}

func (s scribe) batches() {
	one := s.of(batchObject{})
	key := idempotent("The same key and body give the same batch.")
	s.add("create-batch", "POST", "/v1/batches", "Run the requests in a file", s.of(batchRequest{}), one, key)
	s.add("batches", "GET", "/v1/batches", "List batches, the newest first", nil, s.of(pageOf[batchObject]{}), paged(bulk.ListMax)...)
	s.add("batch", "GET", "/v1/batches/{id}", "How far a batch is", nil, one, named("batch"))
	s.add("cancel-batch", "POST", "/v1/batches/{id}/cancel", "Cancel a batch", nil, one, named("batch"))
	s.add("pause-batch", "POST", "/v1/batches/{id}/pause", "Make no more lines tasks", nil, one, named("batch"))
	s.add("resume-batch", "POST", "/v1/batches/{id}/resume", "Let a paused batch go on", nil, one, named("batch"))
	s.add("batch-priority", "POST", "/v1/batches/{id}/priority", "Set the priority of lines that are no tasks yet", s.of(priorityRequest{}), one, named("batch"))
	s.add("retry-batch", "POST", "/v1/batches/{id}/retry", "A new batch of the lines that did not complete", nil, one, named("batch"), key)
}
