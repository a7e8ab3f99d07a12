package node

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// lineMax is what common proxies take of a request's first line.
const lineMax = 4 << 10

// random returns an id of n letters and digits, which hardly compress.
func random(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b)
}

func TestCursorsAreSmall(t *testing.T) {
	v7 := func() string { return uuid.Must(uuid.NewV7()).String() }
	now := time.Now()
	for name, c := range map[string]struct {
		shards, max int
		key         func(shard int) []byte
	}{
		"one":                 {1, 100, func(int) []byte { return task.AllKey(now, v7()) }},
		"64 shards, UUIDv7":   {64, lineMax, func(i int) []byte { return task.AllKey(now.Add(time.Duration(i)*time.Second), v7()) }},
		"64 shards, the end":  {64, lineMax, func(i int) []byte { return task.EndedBound(now.Add(time.Duration(i) * time.Millisecond)) }},
		"16 shards, long ids": {16, lineMax, func(int) []byte { return task.ReadyKey{Model: "m", Visible: now, ID: random(150)}.Bytes() }},
		"64 shards, the worst": {64, cursorMax, func(int) []byte {
			return task.ReadyKey{Model: random(task.IDMax), Visible: now, ID: random(task.IDMax)}.Bytes()
		}},
		"1024 shards, UUIDv7": {1024, cursorMax, func(int) []byte { return task.AllKey(now, v7()) }},
	} {
		t.Run(name, func(t *testing.T) {
			want := cursor{}
			for i := range c.shards {
				want[i] = c.key(i)
			}
			text := want.String()
			t.Log(len(text), "bytes")
			require.LessOrEqual(t, len(text), c.max)
			require.Equal(t, text, url.QueryEscape(text), "goes into a query as it is")
			got, err := parseCursor(text)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, text, got.String(), "the same place has one name")
		})
	}
	require.Empty(t, cursor{}.String())
}

// packed makes a cursor's text of any bytes.
func packed(t testing.TB, plain []byte) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	require.NoError(t, err)
	_, err = w.Write(plain)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return base64.RawURLEncoding.EncodeToString(b.Bytes())
}

func TestForeignCursorsAreRefused(t *testing.T) {
	uvarints := func(ns ...uint64) (b []byte) {
		for _, n := range ns {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	for name, s := range map[string]string{
		"no base64":              "%%%",
		"old":                    base64.RawURLEncoding.EncodeToString([]byte(`{"0":"AAAA"}`)),
		"cut":                    cursor{1: []byte("key")}.String()[:5],
		"nothing":                packed(t, nil),
		"half a number":          packed(t, []byte{0x80}),
		"a number too long":      packed(t, bytes.Repeat([]byte{0xff}, 20)),
		"no shard of ours":       packed(t, append(uvarints(cursorShardsMax, 1), 'k')),
		"a negative shard":       packed(t, append(uvarints(1<<63, 1), 'k')),
		"a shard twice":          packed(t, []byte{1, 1, 'k', 1, 1, 'k'}),
		"shards backwards":       packed(t, []byte{2, 1, 'k', 1, 1, 'k'}),
		"an empty key":           packed(t, []byte{1, 0}),
		"a key that is cut":      packed(t, []byte{1, 5, 'k'}),
		"a key that is too long": packed(t, append(uvarints(1, persistence.IndexKeyMax+1), make([]byte, persistence.IndexKeyMax+1)...)),
		"a bomb":                 packed(t, make([]byte, 20<<20)),
		"a text that is long":    strings.Repeat("A", cursorMax+1),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parseCursor(s)
			require.Equal(t, fault.Invalid, fault.KindOf(err), "%v", c)
			require.NotEmpty(t, fault.RemedyOf(err))
		})
	}
}

// FuzzParseCursor: whatever a client sends, parsing ends, in bounds, and what it accepts is
// a place that has a name.
func FuzzParseCursor(f *testing.F) {
	f.Add("")
	f.Add("end")
	f.Add(cursor{0: []byte("a"), 5: []byte("bc")}.String())
	f.Add(packed(f, []byte{1, 5, 'k'}))
	f.Add(packed(f, make([]byte, cursorPlainMax+10)))
	f.Fuzz(func(t *testing.T, s string) {
		for _, text := range []string{s, packed(t, []byte(s))} {
			c, err := parseCursor(text)
			if err != nil {
				continue
			}
			again, err := parseCursor(c.String())
			require.NoError(t, err)
			require.Equal(t, c, again)
		}
	})
}

// TestListsPageOverManyShards walks lists through the API, page by page, where the cursor names
// every shard: its text may not outgrow what the API itself accepts.
func TestListsPageOverManyShards(t *testing.T) {
	for name, c := range map[string]struct {
		shards, tasks int
		id            func() string
	}{
		"64 shards, UUIDv7":   {64, 400, func() string { return uuid.Must(uuid.NewV7()).String() }},
		"16 shards, long ids": {16, 150, func() string { return random(150) }},
	} {
		t.Run(name, func(t *testing.T) {
			conf := testConfig(t)
			conf.Shards = c.shards
			n := boot(t, conf)
			later := time.Now().Add(time.Hour) // pending, and so it stays
			want := map[string]bool{}
			for range c.tasks {
				id := c.id()
				want[id] = true
				res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": id, "prompt": "p", "not_before": later}, nil)
				require.Equal(t, http.StatusCreated, res.StatusCode)
			}
			for _, state := range []string{"", "pending"} {
				got := map[string]bool{}
				longest := 0
				for cur, pages := "", 0; pages == 0 || cur != ""; pages++ {
					require.Less(t, pages, c.tasks)
					var page struct {
						Tasks []struct {
							ID string `json:"task_id"`
						} `json:"tasks"`
						Next string `json:"next_cursor"`
					}
					q := url.Values{"limit": {"20"}, "cursor": {cur}}
					if state != "" {
						q.Set("state", state)
					}
					res := call(t, n, "GET", "/v1/tasks?"+q.Encode(), nil, &page)
					require.Equal(t, http.StatusOK, res.StatusCode, "page %d, cursor of %d bytes", pages, len(cur))
					for _, x := range page.Tasks {
						require.False(t, got[x.ID], "%s comes twice", x.ID)
						got[x.ID] = true
					}
					cur = page.Next
					longest = max(longest, len(cur))
				}
				t.Log("state", state, "longest cursor", longest)
				require.Equal(t, want, got)
				require.Less(t, longest, lineMax)
			}
			end, err := n.svc.Results(t.Context(), wire.CursorEnd, nil)
			require.NoError(t, err)
			require.Less(t, len(end), lineMax)
			_, err = n.svc.Results(t.Context(), end, func(api.Item) bool { return true })
			require.NoError(t, err)
		})
	}
}
