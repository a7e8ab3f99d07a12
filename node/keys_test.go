package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// secretWord is in everything that a test gives a node to keep. It is random to Snappy, so that no table holds it in pieces.
const secretWord = "Zq7xKv2mPw9sRt4uBn6cLd8e"

func keyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.key")
	require.NoError(t, seal.Create(path))
	return path
}

// failing starts a node that must not start, and returns why.
func failing(t testing.TB, c Config) error {
	t.Helper()
	n, err := New(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = n.Start(ctx)
	require.Error(t, err)
	halt(t, n)
	return err
}

// inClear returns the files below dir that have the word in them.
func inClear(t testing.TB, dir string) (found []string) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(secretWord)) {
			found = append(found, path)
		}
		return err
	}))
	require.Positive(t, files)
	return found
}

// rowsInClear counts the values of a node's rows that have the word in them, as the store has them, and those that do not.
func rowsInClear(t testing.TB, n *Node, keys ...persistence.Key) (clear, sealed int) {
	t.Helper()
	for shard := range n.store.Shards() {
		for _, k := range keys {
			l, err := n.store.Journal(shard).Read(k, 0)
			require.NoError(t, err)
			values := [][]byte{l.Snap}
			for _, r := range l.Rows {
				values = append(values, r.Data)
			}
			for _, v := range values {
				switch {
				case bytes.Contains(v, []byte(secretWord)):
					clear++
				case bytes.HasPrefix(v, []byte("\x00sealed\x01")):
					sealed++
				}
			}
		}
	}
	return clear, sealed
}

// upload sends a file as OpenAI's clients do.
func upload(t testing.TB, n *Node, name, content string) (id string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	require.NoError(t, w.WriteField("purpose", "batch"))
	f, err := w.CreateFormFile("file", name)
	require.NoError(t, err)
	_, err = io.WriteString(f, content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+n.HTTPAddr()+"/v1/files", &b)
	require.NoError(t, err)
	req.Header.Set("Content-Type", w.FormDataContentType())
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, "%s", body)
	var file struct{ ID string }
	require.NoError(t, json.Unmarshal(body, &file))
	return file.ID
}

func content(t testing.TB, n *Node, path string) string {
	t.Helper()
	res, err := http.Get("http://" + n.HTTPAddr() + path)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, "%s", b)
	return string(b)
}

// giveSecrets gives a node tasks that end well and badly, a file and a batch, all with the word, and returns the file's id and the batch's.
func giveSecrets(t testing.TB, n *Node) (file, batch string) {
	t.Helper()
	for i := range 40 { // enough for the Raft log and tables to hold more than one of each
		spec := map[string]any{"task_id": fmt.Sprint("t", i), "prompt": secretWord + " prompt", "metadata": map[string]string{"k": secretWord}, "callback_url": "http://127.0.0.1:1/" + secretWord}
		switch i % 4 {
		case 1:
			delete(spec, "prompt")
			spec["messages"] = []any{map[string]any{"role": "user", "content": secretWord}}
		case 2:
			spec["prompt"] = "#echo fail=always kind=refused\n" + secretWord
		case 3:
			delete(spec, "prompt")
			spec["endpoint"], spec["request"] = "/v1/chat/completions", map[string]any{"messages": []any{map[string]any{"role": "user", "content": secretWord}}}
		}
		res := call(t, n, "POST", "/v1/tasks", spec, nil)
		require.Equal(t, http.StatusCreated, res.StatusCode)
	}
	for i := range 40 {
		var got taskView
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/t%d?wait=20s", i), nil, &got)
		require.Contains(t, []string{"completed", "failed"}, got.State)
	}
	line, err := json.Marshal(map[string]any{"custom_id": secretWord, "method": "POST", "url": "/v1/chat/completions",
		"body": map[string]any{"model": "m", "messages": []any{map[string]any{"role": "user", "content": secretWord}}}})
	require.NoError(t, err)
	file = upload(t, n, secretWord+".jsonl", string(line)+"\n")
	var b struct{ ID, Status string }
	res := call(t, n, "POST", "/v1/batches", map[string]any{"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
		"metadata": map[string]string{"k": secretWord}}, &b)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Eventually(t, func() bool {
		call(t, n, "GET", "/v1/batches/"+b.ID, nil, &b)
		return b.Status == "completed"
	}, 30*time.Second, 50*time.Millisecond, "the batch is %s", b.Status)
	return file, b.ID
}

// readBack checks that what giveSecrets gave is there.
func readBack(t testing.TB, n *Node, file, batch string) {
	t.Helper()
	for _, path := range []string{"/v1/tasks/t0", "/v1/tasks/t1", "/v1/tasks/t2", "/v1/tasks/t3", "/v1/tasks/t0/events", "/v1/files/" + file, "/v1/files/" + file + "/content", "/v1/files", "/v1/batches/" + batch} {
		require.Contains(t, content(t, n, path), secretWord, path)
	}
	var b struct {
		OutputFile string `json:"output_file_id"`
	}
	call(t, n, "GET", "/v1/batches/"+batch, nil, &b)
	require.Contains(t, content(t, n, "/v1/files/"+b.OutputFile+"/content"), secretWord)
}

// TestNothingIsInClearOnDisk: whatever a client gives a node with a key is in none of its files, nor in its rows, nor in its backup; a
// node that is started without that key, or with another one, says so and touches nothing.
func TestNothingIsInClearOnDisk(t *testing.T) {
	c := testConfig(t)
	c.Encryption.KeyFile = keyFile(t)
	n := boot(t, c)
	file, batch := giveSecrets(t, n)
	readBack(t, n, file, batch)
	clear, sealed := rowsInClear(t, n, persistence.Key{Kind: "task", ID: "t0"}, persistence.Key{Kind: "task", ID: "t2"}, persistence.Key{Kind: "file", ID: file}, persistence.Key{Kind: "batch", ID: batch})
	require.Zero(t, clear)
	require.Greater(t, sealed, 6)
	backup := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, n.store.Backup(t.Context(), backup))
	require.Empty(t, inClear(t, backup))
	halt(t, n)
	require.Empty(t, inClear(t, c.DataDir))

	restored := filepath.Join(t.TempDir(), "data")
	require.NoError(t, persistence.Restore(t.Context(), restored, backup, nil))
	for _, dir := range []string{c.DataDir, restored} {
		for name, file := range map[string]string{"no key": "", "another key": keyFile(t)} {
			bad := c
			bad.DataDir, bad.Encryption.KeyFile = dir, file
			err := failing(t, bad)
			require.Equal(t, fault.Refused, fault.KindOf(err), "%s: %v", name, err)
			require.Contains(t, fault.RemedyOf(err), "encryption.key_file", name)
		}
		good := c
		good.DataDir = dir
		n = boot(t, good)
		readBack(t, n, file, batch)
		halt(t, n)
	}
}

// TestTheWordIsFoundWhereItIsClear: the test above can fail.
func TestTheWordIsFoundWhereItIsClear(t *testing.T) {
	c := testConfig(t)
	n := boot(t, c)
	giveSecrets(t, n)
	clear, _ := rowsInClear(t, n, persistence.Key{Kind: "task", ID: "t0"})
	require.Positive(t, clear)
	backup := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, n.store.Backup(t.Context(), backup))
	require.NotEmpty(t, inClear(t, backup))
	halt(t, n)
	require.NotEmpty(t, inClear(t, c.DataDir))
}

// TestAKeyComesLater: what was clear stays readable beside what is sealed since, over a rotation too; a standby opens both and seals nothing.
func TestAKeyComesLater(t *testing.T) {
	c := testConfig(t)
	put := func(n *Node, id string) {
		res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": id, "prompt": secretWord}, nil)
		require.Equal(t, http.StatusCreated, res.StatusCode)
		require.Contains(t, content(t, n, "/v1/tasks/"+id+"?wait=20s"), "completed")
	}
	n := boot(t, c)
	put(n, "clear")
	halt(t, n)
	c.Encryption.KeyFile = keyFile(t)
	steps := []struct {
		id  string
		set func()
	}{
		{"first", func() {}},
		{"announced", func() {
			step, err := seal.Rotate(c.Encryption.KeyFile, false, false)
			require.NoError(t, err)
			require.Equal(t, seal.Announced, step)
		}},
		{"switched", func() { _, err := seal.Rotate(c.Encryption.KeyFile, true, false); require.NoError(t, err) }},
		{"standby", func() { c.Encryption.Standby = true }},
		{"again", func() {
			b, err := os.ReadFile(c.Encryption.KeyFile)
			require.NoError(t, err)
			c.Encryption = EncryptConfig{Key: Secret(b)}
		}},
	}
	ids := []string{"clear"}
	for _, s := range steps {
		s.set()
		n = boot(t, c)
		put(n, s.id)
		ids = append(ids, s.id)
		for _, id := range ids {
			require.Contains(t, content(t, n, "/v1/tasks/"+id), secretWord, "%s at step %s", id, s.id)
			clear, sealed := rowsInClear(t, n, persistence.Key{Kind: "task", ID: id})
			require.Equal(t, id == "clear" || id == "standby", clear > 0, id)
			require.Equal(t, id != "clear" && id != "standby", sealed > 0, id)
		}
		halt(t, n)
	}
}

// TestASealedRowThatChangedIsDamage, and other tasks do not suffer.
func TestASealedRowThatChangedIsDamage(t *testing.T) {
	c := testConfig(t)
	c.Encryption.KeyFile = keyFile(t)
	n := boot(t, c)
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "good", "prompt": secretWord}, nil)
	require.Contains(t, content(t, n, "/v1/tasks/good?wait=20s"), "completed")
	good := persistence.Key{Kind: "task", ID: "good"}
	l, err := n.store.Journal(n.sys.Router.ShardOf(good)).Read(good, 0)
	require.NoError(t, err)
	flipped := bytes.Clone(l.Rows[0].Data)
	flipped[len(flipped)/2] ^= 1
	for id, row := range map[string][]byte{"flipped": flipped, "moved": l.Rows[0].Data} { // as who has the disk, and not the key, can write them
		key := persistence.Key{Kind: "task", ID: id}
		shard := n.sys.Router.ShardOf(key)
		for _, o := range n.sys.Shards.Owners() {
			if o.Shard() != shard {
				continue
			}
			done := make(chan error, 1)
			n.store.Journal(shard).Append(o.Epoch(), []persistence.Write{{Key: key, Data: row}}, 10*time.Second, func(out []persistence.Outcome, err error) {
				if err == nil {
					err = out[0].Err
				}
				done <- err
			})
			require.NoError(t, <-done)
		}
		_, err := n.sys.Router.Read(t.Context(), key, 0)
		require.Equal(t, fault.Corrupt, fault.KindOf(err), "%s: %v", id, err)
		require.NotEmpty(t, fault.RemedyOf(err))
	}
	require.Contains(t, content(t, n, "/v1/tasks/good"), secretWord)
}

// TestBadgersOwnEncryption: by itself it leaves the Raft log clear, which is said; another key, none, and one too many are refused, and a backup changes the key.
func TestBadgersOwnEncryption(t *testing.T) {
	key := func(n int) string {
		path := filepath.Join(t.TempDir(), "store.key")
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{byte(n)}, n), 0o600))
		return path
	}
	c := testConfig(t)
	c.Store.KeyFile = key(32)
	n := boot(t, c)
	file, batch := giveSecrets(t, n)
	backup := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, n.store.Backup(t.Context(), backup))
	halt(t, n)
	require.Empty(t, inClear(t, filepath.Join(c.DataDir, "store")))
	require.NotEmpty(t, inClear(t, filepath.Join(c.DataDir, "raft")))
	n = boot(t, c)
	readBack(t, n, file, batch)
	halt(t, n)
	plain := testConfig(t)
	halt(t, boot(t, plain))
	for name, bad := range map[string][2]string{"another key": {c.DataDir, key(16)}, "no key": {c.DataDir, ""}, "a key too many": {plain.DataDir, key(24)}} {
		b := c
		b.DataDir, b.Store.KeyFile = bad[0], bad[1]
		err := failing(t, b)
		require.Equal(t, fault.Refused, fault.KindOf(err), "%s: %v", name, err)
		require.Contains(t, fault.RemedyOf(err), "store.encryption_key_file", name)
	}
	c.Store.KeyFile = key(15)
	require.Equal(t, fault.Invalid, fault.KindOf(failing(t, c)))
	c.DataDir, c.Store.KeyFile = filepath.Join(t.TempDir(), "data"), key(16)
	other, err := c.Store.BadgerKey()
	require.NoError(t, err)
	require.NoError(t, persistence.Restore(t.Context(), c.DataDir, backup, other))
	readBack(t, boot(t, c), file, batch)
}

// TestKeysThatDiffer: of two nodes that cannot read each other, the one that was started later ends.
func TestKeysThatDiffer(t *testing.T) {
	path := keyFile(t)
	parse := func(standby bool) string {
		k, err := EncryptConfig{KeyFile: path, Standby: standby}.keys()
		require.NoError(t, err)
		return tellKeys(k)
	}
	first, standby := parse(false), parse(true)
	_, err := seal.Rotate(path, false, false)
	require.NoError(t, err)
	announced := parse(false)
	_, err = seal.Rotate(path, true, false)
	require.NoError(t, err)
	switched := parse(false)
	path = keyFile(t)
	other := parse(false)
	for _, x := range []struct {
		a, b  string
		agree bool
	}{
		{"", "", true}, {first, first, true}, {"", standby, true}, {"", first, false}, {standby, first, true}, {first, announced, true},
		{announced, switched, true}, {first, switched, false}, {first, other, false}, {standby, other, false}, {standby, switched, false},
	} {
		for _, swap := range []bool{false, true} {
			if swap {
				x.a, x.b = x.b, x.a
			}
			require.Equal(t, x.agree, keysAgree(x.a, x.b), "%q %q", x.a, x.b)
			a, b := members.Member{Name: "a", Boot: "1", Keys: x.a}, members.Member{Name: "b", Boot: "2", Keys: x.b}
			later, err := otherKeys(a, []members.Member{a, b})
			require.NoError(t, err)
			require.Equal(t, !x.agree, len(later) == 1)
			require.Equal(t, x.agree, sealable(a, []members.Member{a, b}, 2) == nil, "nothing is sealed before they agree")
			require.Equal(t, x.agree, sealable(b, []members.Member{a, b}, 3) == nil)
			require.Error(t, sealable(a, []members.Member{a}, 2), "it has not met the other one yet")
			require.NoError(t, sealable(a, []members.Member{a}, 1))
			later, err = otherKeys(b, []members.Member{a, b})
			require.Empty(t, later)
			if x.agree {
				require.NoError(t, err)
			} else {
				require.Equal(t, fault.Refused, fault.KindOf(err))
				require.Contains(t, fault.RemedyOf(err), "standby")
			}
		}
	}
	require.Less(t, len(tellKeys(manyKeys(t))), 48, "gossip has little room")
}

func manyKeys(t testing.TB) *seal.Keys {
	path := keyFile(t)
	for range 5 {
		_, err := seal.Rotate(path, false, true)
		require.NoError(t, err)
	}
	k, err := EncryptConfig{KeyFile: path}.keys()
	require.NoError(t, err)
	require.Len(t, k.Opens(), 6)
	return k
}

// TestTheKeyIsNeverShown in errors, nor in the printed configuration.
func TestTheKeyIsNeverShown(t *testing.T) {
	path := keyFile(t)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	secret := string(b)
	c := testConfig(t)
	c.Encryption.Key = Secret(strings.Replace(secret, "AesSivKey", "AesGcmKey", 1))
	err = failing(t, c)
	require.Equal(t, fault.Invalid, fault.KindOf(err), "%v", err)
	var keys struct {
		Key []struct {
			KeyData struct{ Value string }
		}
	}
	require.NoError(t, json.Unmarshal(b, &keys))
	var out bytes.Buffer
	require.NoError(t, c.Print(&out))
	info, err2 := seal.Info(path)
	require.NoError(t, err2)
	shown := fmt.Sprint(err, out.String(), info)
	require.NotContains(t, shown, keys.Key[0].KeyData.Value)
	require.NotEmpty(t, keys.Key[0].KeyData.Value)
	c.Encryption.KeyFile = path
	require.Contains(t, c.Validate().Error(), "not both")
	c.Encryption = EncryptConfig{Standby: true}
	require.Error(t, c.Validate())
}
