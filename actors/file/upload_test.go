package file_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestUpload(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	u, err := d.OpenUpload(ctx, file.UploadOptions{PutOptions: batch, Bytes: 11})
	require.NoError(t, err)
	part := func(text string) string {
		p, err := d.AddPart(ctx, u.ID, strings.NewReader(text))
		require.NoError(t, err)
		return p.ID
	}
	second, first, spare := part("world"), part("hello "), part("spare")
	_, err = d.AddPart(ctx, u.ID, iotest.ErrReader(io.ErrUnexpectedEOF))
	require.Error(t, err)
	sum := md5.Sum([]byte("hello world"))
	good := hex.EncodeToString(sum[:])
	for _, c := range []struct {
		parts []string
		md5   string
	}{{nil, ""}, {[]string{first}, ""}, {[]string{first, first}, ""}, {[]string{second, first}, good}, {[]string{first, second}, "00"}, {[]string{first, "x"}, ""}} {
		_, err = d.CompleteUpload(ctx, u.ID, c.parts, c.md5)
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%v: %v", c, err)
	}
	done, err := d.CompleteUpload(ctx, u.ID, []string{first, second}, strings.ToUpper(good))
	require.NoError(t, err)
	require.Equal(t, file.Completed, done.Status)
	again, err := d.CompleteUpload(ctx, u.ID, []string{first, second}, good)
	require.NoError(t, err)
	require.Equal(t, done.File.ID, again.File.ID)
	require.Equal(t, "hello world", d.content(done.File.ID))
	_, err = d.CompleteUpload(ctx, u.ID, []string{second, first}, "")
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	_, err = d.AddPart(ctx, u.ID, strings.NewReader("late"))
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	_, err = d.CancelUpload(ctx, u.ID)
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	until(d, file.UploadKey(u.ID), file.FoldUpload, func(u file.Upload) bool { return u.Swept })
	d.empty(spare)
	require.Equal(t, "hello world", d.content(done.File.ID), "only what is in no file was taken away")
	require.NoError(t, d.Delete(ctx, done.File.ID))
	d.swept(done.File.ID)
	d.empty(first, second)

	for how, end := range map[file.UploadStatus]func(id string){
		file.Cancelled: func(id string) {
			for range 2 {
				_, err := d.CancelUpload(ctx, id)
				require.NoError(t, err)
			}
		},
		file.Expired: func(string) { d.pass(2 * time.Hour) },
	} {
		u, err = d.OpenUpload(ctx, file.UploadOptions{PutOptions: batch, Bytes: 5})
		require.NoError(t, err)
		p := part("12345")
		end(u.ID)
		got := until(d, file.UploadKey(u.ID), file.FoldUpload, func(u file.Upload) bool { return u.Swept })
		require.Equal(t, how, got.Status)
		d.empty(p)
	}
	for _, f := range []func(id string) error{
		func(id string) error { _, err := d.CancelUpload(ctx, id); return err },
		func(id string) error { _, err := d.AddPart(ctx, id, bytes.NewReader(nil)); return err },
		func(id string) error { _, err := d.CompleteUpload(ctx, id, []string{"x"}, ""); return err },
	} {
		require.Equal(t, fault.NotFound, fault.KindOf(f("nobody")))
		require.Equal(t, fault.NotFound, fault.KindOf(f("")))
	}
}

// TestUploadCrashes completes an upload while the n-th append fails, for every n: the file is whole, or is not and may be completed again.
func TestUploadCrashes(t *testing.T) {
	story := func(t *testing.T, d *desk, broken func()) {
		u, err := d.OpenUpload(t.Context(), file.UploadOptions{PutOptions: batch, Bytes: 4})
		require.NoError(t, err)
		a, err := d.AddPart(t.Context(), u.ID, strings.NewReader("ab"))
		require.NoError(t, err)
		b, err := d.AddPart(t.Context(), u.ID, strings.NewReader("cd"))
		require.NoError(t, err)
		d.n.Store(0)
		broken()
		_, err = d.CompleteUpload(t.Context(), u.ID, []string{a.ID, b.ID}, "")
		if err != nil { // a client tries again, or its timer goes on
			_, err = d.CompleteUpload(t.Context(), u.ID, []string{a.ID, b.ID}, "")
		}
		require.NoError(t, err)
		d.pass(time.Minute)
		got := until(d, file.UploadKey(u.ID), file.FoldUpload, func(u file.Upload) bool { return u.Swept })
		require.Equal(t, file.Completed, got.Status)
		require.Equal(t, "abcd", d.content(got.File.ID))
	}
	for _, how := range []string{"refused", "moved"} {
		for n := int64(1); n <= 4; n++ {
			t.Run(fmt.Sprint(how, n), func(t *testing.T) {
				d := newDesk(t)
				story(t, d, func() {
					d.every(how == "moved", func(i int64) error {
						if i != n {
							return nil
						}
						if how == "refused" {
							return fault.New(fault.NoSpace, "test", "", "append %d", i)
						}
						d.moved()
						return fault.New(fault.Timeout, "test", "", "append %d", i)
					})
				})
			})
		}
	}
}
