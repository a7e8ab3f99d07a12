package openaitest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
)

func TestTheOfficialClientsFiles(t *testing.T) {
	n := boot(t, testConfig(t))
	c := official(n)
	ctx := t.Context()
	text := strings.Repeat("{\"custom_id\":\"ü\"}\n", 30_000)
	put := func(name string) *openai.FileObject {
		f, err := c.Files.New(ctx, openai.FileNewParams{File: openai.File(strings.NewReader(text), name, "application/jsonl"), Purpose: openai.FilePurposeBatch,
			ExpiresAfter: openai.FileNewParamsExpiresAfter{Seconds: 3600}})
		require.NoError(t, err)
		return f
	}
	f := put("../x/in.jsonl")
	require.Equal(t, "in.jsonl", f.Filename)
	require.EqualValues(t, len(text), f.Bytes)
	require.Equal(t, openai.FileObjectPurposeBatch, f.Purpose)
	require.Equal(t, openai.FileObjectStatusProcessed, f.Status)
	require.Equal(t, f.CreatedAt+3600, f.ExpiresAt)
	got, err := c.Files.Get(ctx, f.ID)
	require.NoError(t, err)
	require.Equal(t, f.Bytes, got.Bytes)
	res, err := c.Files.Content(ctx, f.ID)
	require.NoError(t, err)
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.True(t, text == string(b))
	require.EqualValues(t, len(text), res.ContentLength)

	// A reader without a name.
	anonymous, err := c.Files.New(ctx, openai.FileNewParams{File: strings.NewReader("x"), Purpose: openai.FilePurposeBatch})
	require.NoError(t, err)
	require.Equal(t, "anonymous_file", anonymous.Filename)
	for i := range 4 {
		put(fmt.Sprint(i))
	}
	pages := c.Files.ListAutoPaging(ctx, openai.FileListParams{Limit: openai.Int(2), Purpose: openai.String("batch"), Order: openai.FileListParamsOrderAsc})
	var ids []string
	for pages.Next() {
		ids = append(ids, pages.Current().ID)
	}
	require.NoError(t, pages.Err())
	require.Len(t, ids, 6)
	require.Equal(t, []string{f.ID, anonymous.ID}, ids[:2])

	// A retry under one idempotency key makes one file.
	once := func(text string) (*openai.FileObject, error) {
		return c.Files.New(ctx, openai.FileNewParams{File: openai.File(strings.NewReader(text), "once.jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch},
			option.WithHeader("Idempotency-Key", "k"))
	}
	made, err := once("x")
	require.NoError(t, err)
	again, err := once("x")
	require.NoError(t, err)
	require.Equal(t, made.ID, again.ID)
	_, err = once("y")
	refused, ok := errors.AsType[*openai.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, http.StatusConflict, refused.StatusCode)

	deleted, err := c.Files.Delete(ctx, f.ID)
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	_, err = c.Files.Get(ctx, f.ID)
	var fault *openai.Error
	require.True(t, errors.As(err, &fault), "%v", err)
	require.Equal(t, http.StatusNotFound, fault.StatusCode)
	require.Equal(t, "invalid_request_error", fault.Type)
	_, err = c.Files.New(ctx, openai.FileNewParams{File: strings.NewReader("x"), Purpose: "nonsense"})
	require.True(t, errors.As(err, &fault), "%v", err)
	require.Equal(t, http.StatusBadRequest, fault.StatusCode)
	require.Equal(t, "purpose", fault.Param)
}

func TestTheOfficialClientsUploads(t *testing.T) {
	c := official(boot(t, testConfig(t)))
	ctx := t.Context()
	u, err := c.Uploads.New(ctx, openai.UploadNewParams{Bytes: 10, Filename: "u.jsonl", MimeType: "application/jsonl", Purpose: openai.FilePurposeBatch})
	require.NoError(t, err)
	require.Equal(t, openai.UploadStatusPending, u.Status)
	require.Equal(t, u.CreatedAt+3600, u.ExpiresAt)
	var parts []string
	for _, text := range []string{"hello", "world"} {
		p, err := c.Uploads.Parts.New(ctx, u.ID, openai.UploadPartNewParams{Data: strings.NewReader(text)})
		require.NoError(t, err)
		require.Equal(t, u.ID, p.UploadID)
		parts = append(parts, p.ID)
	}
	_, err = c.Uploads.Complete(ctx, u.ID, openai.UploadCompleteParams{PartIDs: parts, Md5: openai.String("00")})
	var fault *openai.Error
	require.True(t, errors.As(err, &fault), "%v", err)
	require.Equal(t, http.StatusBadRequest, fault.StatusCode)
	require.Equal(t, "md5", fault.Param)
	u, err = c.Uploads.Complete(ctx, u.ID, openai.UploadCompleteParams{PartIDs: parts, Md5: openai.String("fc5e038d38a57032085441e7fe7010b0")})
	require.NoError(t, err)
	require.Equal(t, openai.UploadStatusCompleted, u.Status)
	res, err := c.Files.Content(ctx, u.File.ID)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "helloworld", string(b))
	_, err = c.Uploads.Cancel(ctx, u.ID)
	require.True(t, errors.As(err, &fault), "%v", err)
	require.Equal(t, http.StatusConflict, fault.StatusCode)

	u, err = c.Uploads.New(ctx, openai.UploadNewParams{Bytes: 10, Filename: "u", MimeType: "", Purpose: openai.FilePurposeBatch})
	require.NoError(t, err)
	u, err = c.Uploads.Cancel(ctx, u.ID)
	require.NoError(t, err)
	require.Equal(t, openai.UploadStatusCancelled, u.Status)
}
