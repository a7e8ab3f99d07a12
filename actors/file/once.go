package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strconv"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// livesMax is how many files may be made under one idempotency key, one after the other was deleted.
const livesMax = 100

// onceID is the id of what is made under an idempotency key: always the same. life counts those that were deleted.
func onceID(ctx context.Context, prefix, key string, life int) string {
	sum := sha256.Sum256([]byte(prefix + "\x00" + strconv.Itoa(life) + "\x00" + key))
	return tenant.Own(ctx, prefix+hex.EncodeToString(sum[:16]))
}

// ReceiveOnce is Receive under an idempotency key: whoever sends the same bytes again gets the file that the first made, and other ones are a
// Conflict. The file's id is made of the key, and so are the names of its chunks: a chunk that is there already is not written again. So a client may come
// back in the middle, beside an attempt that has not ended, too. What it does not come back for stays until files.stale_after.
func (l *Library) ReceiveOnce(ctx context.Context, filename, key string) (*Incoming, error) {
	for life := range livesMax {
		id := onceID(ctx, "file-", key, life)
		r, err := l.load(ctx, id)
		if err != nil {
			return nil, err
		}
		if r.Status == Deleted {
			continue
		}
		in := l.incoming(id, filename)
		in.once = true
		if r.Status == Processed {
			in.there = &r.Info
			return in, nil
		}
		v, err := l.router.Ask(ctx, Key(id), Begin{Info: in.info})
		if fault.KindOf(err) == fault.Conflict { // it has ended meanwhile
			if r, err = l.load(ctx, id); err == nil && r.Status == Processed {
				in.there = &r.Info
				return in, nil
			}
			continue
		}
		if is, ok := v.(Is); ok {
			in.info.CreatedAt = is.Info.CreatedAt
			_, err = l.router.Ask(ctx, Key(id), Progress{}) // an attempt before it may have been given up almost
		}
		if err != nil {
			return nil, err
		}
		return in, nil
	}
	return nil, fault.New(fault.Conflict, "file.create", "", "%d files were made under this idempotency key and deleted", livesMax).WithRemedy("use another key")
}

// check reads what is sent for a file that is there.
func (in *Incoming) check(r io.Reader) error {
	if max := in.l.bytesMax; max > 0 {
		r = io.LimitReader(r, max+1)
	}
	n, err := io.Copy(io.MultiWriter(in.sha, in.md), r)
	if err == nil && n != in.there.Bytes {
		err = otherBody(in.info.ID)
	}
	return err
}

// same tells whether a file that was kept is the one that is sent.
func (in *Incoming) same(was, f *Info) error {
	life := func(i *Info) int64 {
		if i.ExpiresAt.IsZero() {
			return 0
		}
		return int64(i.ExpiresAt.Sub(i.CreatedAt))
	}
	if was.SHA256 != f.SHA256 || was.Purpose != f.Purpose || was.Filename != f.Filename || life(was) != life(f) {
		return otherBody(in.info.ID)
	}
	return nil
}

func otherBody(id string) error {
	return fault.New(fault.Conflict, "file.create", id, "another file was sent under this idempotency key").WithRemedy("give each file a key of its own")
}

// OpenUploadOnce is OpenUpload under an idempotency key: the same upload again, whatever has become of it.
func (l *Library) OpenUploadOnce(ctx context.Context, o UploadOptions, key string) (UploadInfo, error) {
	u, err := l.openUpload(ctx, onceID(ctx, "upload_", key, 0), o)
	if err == nil && (u.Filename != Filename(o.Filename) || u.Purpose != o.Purpose || u.Bytes != o.Bytes || u.Mime != o.Mime || u.ExpiresAfter != o.ExpiresAfter) {
		err = otherBody(u.ID)
	}
	return u, err
}
