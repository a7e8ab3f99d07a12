package file

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// UploadOptions say what an upload will be.
type UploadOptions struct {
	PutOptions
	Mime  string
	Bytes int64 // of all its parts
}

// OpenUpload begins an upload.
func (l *Library) OpenUpload(ctx context.Context, o UploadOptions) (UploadInfo, error) {
	id, err := newID(ctx, "upload_")
	if err != nil {
		return UploadInfo{}, err
	}
	return l.openUpload(ctx, id, o)
}

func (l *Library) openUpload(ctx context.Context, id string, o UploadOptions) (UploadInfo, error) {
	if err := o.PutOptions.Check(); err != nil {
		return UploadInfo{}, err
	}
	limit := int64(PartMax) * PartsMax
	if l.bytesMax > 0 {
		limit = min(limit, l.bytesMax)
	}
	switch {
	case o.Bytes < 1:
		return UploadInfo{}, fault.New(fault.Invalid, "file.upload", "bytes", "is %d: how many bytes the file will have", o.Bytes)
	case o.Bytes > limit:
		return UploadInfo{}, fault.New(fault.TooLarge, "file.upload", "bytes", "is %d: at most %d", o.Bytes, limit)
	case len(o.Mime) > mimeMax:
		return UploadInfo{}, fault.New(fault.Invalid, "file.upload", "mime_type", "has %d bytes: at most %d", len(o.Mime), mimeMax)
	}
	now := l.now().UTC().Truncate(time.Microsecond)
	return l.askUpload(ctx, id, Open{Upload: UploadInfo{ID: id, Filename: Filename(o.Filename), Purpose: o.Purpose, Mime: o.Mime, Bytes: o.Bytes,
		CreatedAt: now, ExpiresAt: now.Add(UploadLives), ExpiresAfter: o.ExpiresAfter}})
}

func (l *Library) askUpload(ctx context.Context, id string, msg any) (UploadInfo, error) {
	if id == "" || len(id) > idMax {
		return UploadInfo{}, noUpload(id)
	}
	v, err := l.router.Ask(ctx, UploadKey(id), msg)
	if err != nil {
		return UploadInfo{}, err
	}
	return v.(Stands).Upload, nil
}

// AddPart stores a part. After an error nothing of it stays.
func (l *Library) AddPart(ctx context.Context, id string, r io.Reader) (Part, error) {
	pid, err := newID(ctx, "part_")
	if err != nil {
		return Part{}, err
	}
	p := Part{ID: pid, CreatedAt: l.now().UTC().Truncate(time.Microsecond)}
	if _, err := l.askUpload(ctx, id, BeginPart{Part: p}); err != nil {
		return Part{}, err
	}
	ref, err := l.store.Write(ctx, pid, r, PartMax)
	if err != nil {
		l.sweepPart(pid)
		return Part{}, err
	}
	p.Bytes, p.Whole = ref.Bytes, true
	if _, err := l.askUpload(ctx, id, EndPart{Part: p}); err != nil {
		if k := fault.KindOf(err); k == fault.Conflict || k == fault.NotFound { // else it may be there
			l.sweepPart(pid)
		}
		return Part{}, err
	}
	return p, nil
}

// sweepPart takes a part away at once. What it leaves goes with the upload.
func (l *Library) sweepPart(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), dropFor)
	defer cancel()
	_ = l.store.Sweep(ctx, id)
}

// CompleteUpload makes the file, of parts in the order of their ids here. md5, hexadecimal, is checked against all of it where it is given.
func (l *Library) CompleteUpload(ctx context.Context, id string, parts []string, sum string) (UploadInfo, error) {
	if sum = strings.ToLower(sum); sum != "" {
		if err := l.checkMD5(ctx, id, parts, sum); err != nil {
			return UploadInfo{}, err
		}
	}
	fid, err := newID(ctx, "file-")
	if err != nil {
		return UploadInfo{}, err
	}
	settled := func(bool) {}
	if before, err := l.loadUpload(ctx, id); err == nil && before.Status == Pending { // else it was let in, or the actor says what is wrong
		if settled, err = l.admitted(ctx, id, before.Bytes); err != nil {
			return UploadInfo{}, err
		}
	}
	u, err := l.askUpload(ctx, id, Complete{Parts: parts, FileID: fid, MD5: sum})
	if err != nil || u.Status == Completed {
		settled(false)
		return u, err
	}
	_, err = l.router.Ask(ctx, Key(u.File.ID), Adopt{Info: *u.File})
	settled(err == nil)
	if err != nil {
		return UploadInfo{}, err
	}
	return l.askUpload(ctx, id, Made{})
}

// checkMD5 reads the parts once.
func (l *Library) checkMD5(ctx context.Context, id string, parts []string, sum string) error {
	u, err := l.loadUpload(ctx, id)
	if err != nil || u.Status != Pending { // the actor says what is wrong
		return err
	}
	refs, err := u.chosen(parts)
	if err != nil {
		return err
	}
	r := l.store.Open(ctx, refs, 0)
	defer r.Close()
	h := md5.New()
	if _, err := io.CopyBuffer(h, r, make([]byte, blob.ChunkBytes)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fault.New(fault.Invalid, "file.complete", "md5", "is %s, that of the parts is %s", sum, got)
	}
	return nil
}

func (l *Library) loadUpload(ctx context.Context, id string) (Upload, error) {
	if id == "" || len(id) > idMax {
		return Upload{}, noUpload(id)
	}
	u, _, err := uploadFolder.Load(cluster.Reader{Context: ctx, Router: l.router}, id)
	return u, err
}

// CancelUpload gives an upload up.
func (l *Library) CancelUpload(ctx context.Context, id string) (UploadInfo, error) {
	return l.askUpload(ctx, id, Cancel{})
}
