package node

import (
	"context"
	"io"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

// tenantFiles is the library for clients, who name what is their tenant's: whose they are, the context says. What it answers has
// whole ids, which the API shows without the tenant.
type tenantFiles struct{ *file.Library }

// Get returns a file.
func (t tenantFiles) Get(ctx context.Context, id string) (file.Info, error) {
	return t.Library.Get(ctx, tenant.Own(ctx, id))
}

// List returns a page of the tenant's files.
func (t tenantFiles) List(ctx context.Context, q file.Query) ([]file.Info, bool, error) {
	if q.After != "" {
		q.After = tenant.Own(ctx, q.After)
	}
	return t.Library.List(ctx, q)
}

// Delete makes a file disappear.
func (t tenantFiles) Delete(ctx context.Context, id string) error {
	return t.Library.Delete(ctx, tenant.Own(ctx, id))
}

// Open reads a file.
func (t tenantFiles) Open(ctx context.Context, id string, offset int64) (io.ReadCloser, file.Info, error) {
	return t.Library.Open(ctx, tenant.Own(ctx, id), offset)
}

// AddPart stores a part.
func (t tenantFiles) AddPart(ctx context.Context, upload string, r io.Reader) (file.Part, error) {
	return t.Library.AddPart(ctx, tenant.Own(ctx, upload), r)
}

// CompleteUpload makes the file.
func (t tenantFiles) CompleteUpload(ctx context.Context, id string, parts []string, md5 string) (file.UploadInfo, error) {
	whole := make([]string, len(parts))
	for i, p := range parts {
		whole[i] = tenant.Own(ctx, p)
	}
	return t.Library.CompleteUpload(ctx, tenant.Own(ctx, id), whole, md5)
}

// CancelUpload ends it without a file.
func (t tenantFiles) CancelUpload(ctx context.Context, id string) (file.UploadInfo, error) {
	return t.Library.CancelUpload(ctx, tenant.Own(ctx, id))
}

// tenantBatches is the batches for clients, in the same way.
type tenantBatches struct{ all *bulk.Batches }

// Create makes a batch.
func (t tenantBatches) Create(ctx context.Context, id string, h *bulk.Header) (bulk.State, error) {
	own := *h
	own.InputFile = tenant.Own(ctx, h.InputFile)
	return t.all.Create(ctx, tenant.Own(ctx, id), &own)
}

// Get returns a batch.
func (t tenantBatches) Get(ctx context.Context, id string) (bulk.State, error) {
	return t.all.Get(ctx, tenant.Own(ctx, id))
}

// List returns the tenant's batches.
func (t tenantBatches) List(ctx context.Context, after string, limit int) ([]bulk.Item, bool, error) {
	if after != "" {
		after = tenant.Own(ctx, after)
	}
	return t.all.List(ctx, after, limit)
}

// Say tells a batch something.
func (t tenantBatches) Say(ctx context.Context, id string, msg any) (bulk.State, error) {
	return t.all.Say(ctx, tenant.Own(ctx, id), msg)
}

// Retry makes a batch of another's failed lines.
func (t tenantBatches) Retry(ctx context.Context, id, of string, again bulk.Again) (bulk.State, error) {
	return t.all.Retry(ctx, tenant.Own(ctx, id), tenant.Own(ctx, of), again)
}

// Used returns a batch that needs the file.
func (t tenantBatches) Used(ctx context.Context, id string) (string, error) {
	return t.all.Used(ctx, tenant.Own(ctx, id))
}
