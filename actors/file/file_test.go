package file

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestFilename(t *testing.T) {
	for in, want := range map[string]string{
		"a.jsonl": "a.jsonl", "": anonymous, ".": anonymous, "..": anonymous, "/": anonymous, "  ": anonymous, "\x00\n": anonymous,
		"../../etc/passwd": "passwd", `..\..\boot.ini`: "boot.ini", "/etc/passwd": "passwd", "c:\\x/../y": "y", "a/..": anonymous,
		"a\nb\x1b[31m.txt": "ab[31m.txt", "b\u202Etxt.exe": "btxt.exe", "bad\xffutf8": "badutf8", "über größe.jsonl": "über größe.jsonl",
		strings.Repeat("ü", 200): strings.Repeat("ü", 127),
	} {
		require.Equal(t, want, Filename(in), "%q", in)
		require.Equal(t, want, Filename(want), "%q stays as it is", want)
	}
}

// TestPhases walks every pair of state and event.
func TestPhases(t *testing.T) {
	whole := Info{ID: "f", Content: []blob.Ref{{ID: "f", Bytes: 3}}, Bytes: 3, ExpiresAt: time.Unix(9, 0)}
	events := []Fact{{What: "begun", Info: &whole, Wake: time.Unix(1, 0)}, {What: "progressed", Wake: time.Unix(2, 0)}, {What: "finished", Info: &whole},
		{What: "adopted", Info: &whole}, {What: "sized", Bytes: 4}, {What: "deleted", Wake: time.Unix(3, 0), Request: "r"}, {What: "swept"}, {What: "nonsense"}}
	want := map[Status]map[string]Status{
		None:      {"begun": Uploading, "adopted": Processed},
		Uploading: {"progressed": Uploading, "finished": Processed, "deleted": Deleted},
		Processed: {"sized": Processed, "deleted": Deleted},
		Deleted:   {"swept": Deleted},
	}
	for from, next := range want {
		for _, e := range events {
			r, err := Record{Info: Info{ID: "f", Status: from}}.apply(e)
			to, ok := next[e.What]
			require.Equal(t, ok, err == nil, "%s in %q: %v", e.What, from, err)
			if !ok {
				require.Equal(t, fault.Corrupt, fault.KindOf(err))
				continue
			}
			require.Equal(t, to, r.Status, "%s in %q", e.What, from)
			switch e.What {
			case "begun", "progressed", "deleted":
				require.Equal(t, e.Wake, r.Wake)
			case "finished", "adopted":
				require.Equal(t, whole.ExpiresAt, r.Wake)
			case "swept":
				require.True(t, r.Wake.IsZero() && r.Swept && r.Content == nil, "it sleeps for ever")
			}
		}
	}
}

// TestUploadPhases walks every pair of state and event of an upload.
func TestUploadPhases(t *testing.T) {
	p := &Part{ID: "p", Bytes: 3, Whole: true}
	events := []Step{{What: "opened", Upload: &UploadInfo{ID: "u", ExpiresAt: time.Unix(9, 0)}}, {What: "part_begun", Part: p}, {What: "part_done", Part: p},
		{What: "completing", File: &Info{}}, {What: "completed"}, {What: "cancelled"}, {What: "expired"}, {What: "swept"}, {What: "nonsense"}}
	want := map[UploadStatus]map[string]UploadStatus{
		NoUpload:   {"opened": Pending},
		Pending:    {"part_begun": Pending, "part_done": Pending, "completing": Completing, "cancelled": Cancelled, "expired": Expired},
		Completing: {"completed": Completed},
		Completed:  {"swept": Completed},
		Cancelled:  {"swept": Cancelled},
		Expired:    {"swept": Expired},
	}
	for from, next := range want {
		for _, e := range events {
			before := Upload{UploadInfo: UploadInfo{ID: "u", Status: from}, Parts: []Part{{ID: "p"}}}
			u, err := before.apply(e)
			to, ok := next[e.What]
			require.Equal(t, ok, err == nil, "%s in %q: %v", e.What, from, err)
			if ok {
				require.Equal(t, to, u.Status, "%s in %q", e.What, from)
			}
			require.Equal(t, []Part{{ID: "p"}}, before.Parts, "the older state is as it was")
		}
	}
}

func TestChosen(t *testing.T) {
	u := Upload{UploadInfo: UploadInfo{Bytes: 5}, Parts: []Part{{ID: "a", Bytes: 2, Whole: true}, {ID: "b", Bytes: 3, Whole: true}, {ID: "c", Bytes: 3}}}
	for _, c := range []struct {
		ids  string
		want string
	}{
		{"a b", ""}, {"b a", ""}, {"", "is empty"}, {"a", "the parts have 2"}, {"a a b", `"a", which is no whole part`}, {"a c", `"c", which is no whole part`}, {"a x", `"x", which is no`},
	} {
		refs, err := u.chosen(strings.Fields(c.ids))
		if c.want != "" {
			require.ErrorContains(t, err, c.want)
			continue
		}
		require.NoError(t, err)
		for i, id := range strings.Fields(c.ids) {
			require.Equal(t, id, refs[i].ID)
		}
	}
}

func TestPutOptions(t *testing.T) {
	for _, c := range []struct {
		o    PutOptions
		want string
	}{
		{PutOptions{Purpose: "batch"}, ""}, {PutOptions{Purpose: "batch", ExpiresAfter: ExpiresMin}, ""}, {PutOptions{Purpose: "vision", ExpiresAfter: ExpiresMax}, ""},
		{PutOptions{}, "purpose"}, {PutOptions{Purpose: PurposeOutput}, "batch_output"},
		{PutOptions{Purpose: "batch", ExpiresAfter: ExpiresMin - time.Second}, "3600 to 2592000"}, {PutOptions{Purpose: "batch", ExpiresAfter: ExpiresMax + 1}, "3600"},
	} {
		err := c.o.Check()
		if c.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.want)
		}
	}
}
