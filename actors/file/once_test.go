package file_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// once puts a file under an idempotency key.
func (d *desk) once(key, name string, o file.PutOptions, r io.Reader) (file.Info, error) {
	in, err := d.ReceiveOnce(d.t.Context(), name, key)
	if err != nil {
		return file.Info{}, err
	}
	defer in.Drop()
	if err := in.Fill(d.t.Context(), r); err != nil {
		return file.Info{}, err
	}
	return in.Keep(d.t.Context(), o)
}

func (d *desk) all() []file.Info {
	d.t.Helper()
	page, more, err := d.List(d.t.Context(), file.Query{Limit: 100})
	require.NoError(d.t, err)
	require.False(d.t, more)
	return page
}

var long = strings.Repeat("x", 3*blob.ChunkBytes+7)

// TestOneFileOfOneKey: a client that sends the same again, also after it was cut off, gets the one file; one that sends something else under the key is told so.
func TestOneFileOfOneKey(t *testing.T) {
	d := newDesk(t)
	gone := errors.New("gone")
	for range 2 {
		_, err := d.once("k", "a", batch, io.MultiReader(strings.NewReader(long[:2*blob.ChunkBytes+5]), iotest.ErrReader(gone)))
		require.ErrorIs(t, err, gone)
	}
	first, err := d.once("k", "a", batch, strings.NewReader(long))
	require.NoError(t, err)
	d.pass(time.Hour)
	again, err := d.once("k", "dir/a", batch, iotest.HalfReader(strings.NewReader(long)))
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, long, d.content(first.ID))

	expires := batch
	expires.ExpiresAfter = file.ExpiresMin
	for what, err := range map[string]error{
		"longer":     second(d.once("k", "a", batch, strings.NewReader(long+"y"))),
		"shorter":    second(d.once("k", "a", batch, strings.NewReader(long[1:]))),
		"other":      second(d.once("k", "a", batch, strings.NewReader(strings.Replace(long, "x", "y", 1)))),
		"name":       second(d.once("k", "b", batch, strings.NewReader(long))),
		"purpose":    second(d.once("k", "a", file.PutOptions{Purpose: "vision"}, strings.NewReader(long))),
		"expiration": second(d.once("k", "a", expires, strings.NewReader(long))),
	} {
		require.Equal(t, fault.Conflict, fault.KindOf(err), "%s: %v", what, err)
		require.NotEmpty(t, fault.RemedyOf(err), what)
	}
	require.Equal(t, long, d.content(first.ID))
	require.Len(t, d.all(), 1)

	other, err := d.once("k2", "a", batch, strings.NewReader(long))
	require.NoError(t, err)
	require.NotEqual(t, first.ID, other.ID)
	in, err := d.ReceiveOnce(tenant.With(t.Context(), "acme"), "a", "k")
	require.NoError(t, err)
	require.Equal(t, "acme", tenant.Of(in.ID()), "a key is its tenant's")
}

func second(_ file.Info, err error) error { return err }

// TestAttemptsSideBySide: an attempt that its client has given up may still be under way when the next one comes.
func TestAttemptsSideBySide(t *testing.T) {
	d := newDesk(t)
	slow, err := d.ReceiveOnce(t.Context(), "a", "k")
	require.NoError(t, err)
	half, rest := strings.NewReader(long[:blob.ChunkBytes+9]), strings.NewReader(long[blob.ChunkBytes+9:])
	var quick file.Info
	require.NoError(t, slow.Fill(t.Context(), io.MultiReader(half, readerFunc(func(b []byte) (int, error) {
		if quick.ID == "" {
			quick, err = d.once("k", "a", batch, strings.NewReader(long))
			require.NoError(t, err)
		}
		return rest.Read(b)
	}))))
	kept, err := slow.Keep(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, quick, kept)
	require.Len(t, d.all(), 1)
	require.Equal(t, long, d.content(kept.ID))
}

// TestAKeyAfterItsFileIsGone: what was deleted is not given out again, and what nobody came back for goes.
func TestAKeyAfterItsFileIsGone(t *testing.T) {
	d := newDesk(t)
	first, err := d.once("k", "a", batch, strings.NewReader("x"))
	require.NoError(t, err)
	require.NoError(t, d.Delete(t.Context(), first.ID))
	next, err := d.once("k", "a", batch, strings.NewReader("y"))
	require.NoError(t, err)
	require.NotEqual(t, first.ID, next.ID)
	require.Equal(t, "y", d.content(next.ID))

	in, err := d.ReceiveOnce(t.Context(), "a", "left")
	require.NoError(t, err)
	require.NoError(t, in.Fill(t.Context(), strings.NewReader(long)))
	in.Drop()
	d.pass(2 * time.Hour)
	d.swept(in.ID())
	back, err := d.once("left", "a", batch, strings.NewReader(long))
	require.NoError(t, err)
	require.Equal(t, long, d.content(back.ID))
}

// TestOneFileWhicheverWriteFails: whichever append fails, or is applied and not answered, a client that tries again has one file in the end.
func TestOneFileWhicheverWriteFails(t *testing.T) {
	for _, lose := range []bool{false, true} {
		for n, hit := int64(1), true; hit; n++ {
			d := newDesk(t)
			hit = false
			d.every(lose, func(at int64) error {
				if at == n {
					hit = true
					return fault.New(fault.NoSpace, "test", "", "append %d", at)
				}
				return nil
			})
			var kept file.Info
			for try := 0; kept.ID == ""; try++ {
				require.Less(t, try, 5)
				kept, _ = d.once("k", "a", batch, strings.NewReader(long))
			}
			require.Len(t, d.all(), 1, fmt.Sprint(lose, n))
			require.Equal(t, long, d.content(kept.ID))
		}
	}
}

func TestOneUploadOfOneKey(t *testing.T) {
	d := newDesk(t)
	o := file.UploadOptions{PutOptions: batch, Bytes: 3}
	u, err := d.OpenUploadOnce(t.Context(), o, "k")
	require.NoError(t, err)
	d.pass(time.Minute)
	again, err := d.OpenUploadOnce(t.Context(), o, "k")
	require.NoError(t, err)
	require.Equal(t, u, again)
	p, err := d.AddPart(t.Context(), u.ID, strings.NewReader("abc"))
	require.NoError(t, err)
	done, err := d.CompleteUpload(t.Context(), u.ID, []string{p.ID}, "")
	require.NoError(t, err)
	again, err = d.OpenUploadOnce(t.Context(), o, "k")
	require.NoError(t, err)
	require.Equal(t, file.Completed, again.Status)
	require.Equal(t, done.File.ID, again.File.ID)
	o.Bytes++
	_, err = d.OpenUploadOnce(t.Context(), o, "k")
	require.Equal(t, fault.Conflict, fault.KindOf(err))
}
