package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/actors/sink"
)

// locked is a node that asks for keys.
type locked struct {
	t    *testing.T
	n    *Node
	root string
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func bootLocked(t *testing.T, edit func(*Config), opts ...Option) *locked {
	t.Helper()
	text, root, err := apikey.NewRoot()
	require.NoError(t, err)
	c := testConfig(t)
	c.Access.Keys, c.Access.AdminKey = KeysRequired, Secret(root.String())
	if edit != nil {
		edit(&c)
	}
	l := &locked{t: t, root: text, log: &lockedBuffer{}}
	l.n, err = New(c, slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})), opts...)
	require.NoError(t, err)
	require.NoError(t, l.n.Start(t.Context()))
	t.Cleanup(func() { halt(t, l.n) })
	return l
}

// do makes a request with a key, and returns the status and the answer.
func (l *locked) do(key, method, path, media string, body []byte) (int, http.Header, []byte) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, "http://"+l.n.HTTPAddr()+path, bytes.NewReader(body))
	require.NoError(l.t, err)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(l.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(l.t, err)
	return res.StatusCode, res.Header, b
}

// ask is do with JSON, which must have the status.
func (l *locked) ask(key, method, path string, body any, status int) map[string]any {
	l.t.Helper()
	var b []byte
	if body != nil {
		var err error
		b, err = json.Marshal(body)
		require.NoError(l.t, err)
	}
	got, _, answer := l.do(key, method, path, "application/json", b)
	require.Equal(l.t, status, got, "%s %s: %s", method, path, answer)
	var v map[string]any
	_ = json.Unmarshal(answer, &v) // an answer that is no object is asked for by do
	return v
}

// key makes one.
func (l *locked) key(tenant, role string) string {
	l.t.Helper()
	return l.ask(l.root, "POST", "/v1/keys", map[string]any{"name": tenant + " " + role, "tenant": tenant, "role": role}, 201)["key"].(string)
}

func TestWithoutAKeyNothingIsAnswered(t *testing.T) {
	l := bootLocked(t, nil)
	for _, c := range []struct{ method, path string }{
		{"GET", "/v1/tasks"}, {"POST", "/v1/tasks"}, {"GET", "/v1/results"}, {"GET", "/v1/status"}, {"GET", "/metrics"}, {"GET", "/v1/cluster"}, {"GET", "/v1/keys"},
		{"POST", "/v1/keys"}, {"GET", "/v1/audit"}, {"GET", "/v1/whoami"}, {"GET", "/v1/files"}, {"POST", "/v1/files"}, {"POST", "/v1/batches"}, {"GET", "/v1/models"},
		{"POST", "/v1/chat/completions"}, {"POST", "/v1/admin/backup"}, {"POST", "/v1/cluster/drain"}, {"POST", "/autoglm.actor.v1.ActorService/Ask"}, {"GET", "/nowhere"},
	} {
		for _, key := range []string{"", "sk-other", l.root[:20]} {
			status, h, body := l.do(key, c.method, c.path, "application/json", []byte("{}"))
			require.Equal(t, 401, status, "%s %s: %s", c.method, c.path, body)
			require.Contains(t, h.Get("WWW-Authenticate"), "Bearer")
			if strings.HasPrefix(c.path, "/v1/files") || strings.HasPrefix(c.path, "/v1/chat") {
				require.Contains(t, string(body), `"code":"invalid_api_key"`, "clients of OpenAI know no other error")
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/docs"} {
		status, _, _ := l.do("", "GET", path, "", nil)
		require.Equal(t, 200, status, path)
	}
	l.ask(l.root, "GET", "/v1/tasks", nil, 200)
}

func TestRoles(t *testing.T) {
	l := bootLocked(t, nil)
	keys := map[string]string{}
	for _, role := range []string{"read", "submit", "admin"} {
		keys[role] = l.key("acme", role)
	}
	opRead := l.key("default", "read")
	task := map[string]any{"task_id": "a", "prompt": "x"}
	for _, c := range []struct {
		key, method, path string
		body              any
		status            int
	}{
		{keys["read"], "GET", "/v1/tasks", nil, 200},
		{keys["read"], "POST", "/v1/tasks", task, 403},
		{keys["read"], "POST", "/v1/tasks/a/cancel", nil, 403},
		{keys["submit"], "POST", "/v1/tasks", task, 201},
		{keys["submit"], "GET", "/v1/keys", nil, 403},
		{keys["admin"], "GET", "/v1/keys", nil, 200},
		{keys["admin"], "POST", "/v1/keys", map[string]any{"name": "x", "role": "read"}, 201},
		{keys["admin"], "POST", "/v1/keys", map[string]any{"name": "x", "role": "read", "tenant": "other"}, 403},
		{keys["admin"], "POST", "/v1/keys", map[string]any{"name": "x", "role": "root"}, 422},
		{keys["admin"], "GET", "/v1/keys?tenant=other", nil, 403},
		{keys["admin"], "GET", "/metrics", nil, 403},
		{keys["admin"], "GET", "/v1/cluster", nil, 403},
		{keys["admin"], "POST", "/v1/admin/backup", map[string]any{"dir": "/tmp/x"}, 403},
		{opRead, "GET", "/metrics", nil, 200},
		{opRead, "GET", "/v1/cluster", nil, 200},
		{opRead, "POST", "/v1/admin/backup", map[string]any{"dir": "/tmp/x"}, 403},
		{l.root, "POST", "/v1/admin/backup", map[string]any{"dir": t.TempDir() + "/copy"}, 200},
	} {
		l.ask(c.key, c.method, c.path, c.body, c.status)
	}
	refused := l.ask(keys["admin"], "POST", "/v1/keys", map[string]any{"name": "x", "role": "root"}, 422)
	require.Contains(t, refused["detail"], `, not "root"`, "what was given")
	who := l.ask(keys["submit"], "GET", "/v1/whoami", nil, 200)
	require.Equal(t, "acme", who["tenant"])
	require.Equal(t, "submit", who["role"])
}

// TestTenantsDoNotMeet: two tenants use the same ids for everything, and each sees its own; the operator sees neither.
func TestTenantsDoNotMeet(t *testing.T) {
	cfg := func(c *Config) { c.Source.AllowedDirs = []string{"/"} }
	l := bootLocked(t, cfg, WithKind(bank.Kinds()[0]), WithKind(bank.Kinds()[1]))
	tenants := map[string]string{"acme": l.key("acme", "submit"), "beta": l.key("beta", "submit"), "default": l.root}
	batches := map[string]string{}
	for name, key := range tenants {
		l.ask(key, "POST", "/v1/tasks", map[string]any{"task_id": "same", "prompt": "secret of " + name, "metadata": map[string]string{"of": name}}, 201)
		require.Equal(t, "secret of "+name, l.ask(key, "GET", "/v1/tasks/same?wait=20s", nil, 200)["answer"])
		l.ask(key, "POST", "/v1/tasks", map[string]any{"task_id": "only-" + name, "prompt": "x", "not_before": "2999-01-01T00:00:00Z"}, 201)
		batches[name] = runBatch(t, l, name, key)
		l.ask(key, "POST", "/autoglm.actor.v1.ActorService/Ask", map[string]any{"kind": "account", "id": "same", "type": "Open", "request_id": "r", "json": map[string]any{}}, 200)
	}
	for name, key := range tenants {
		for _, path := range []string{"/v1/tasks", "/v1/tasks?state=pending", "/v1/tasks?state=completed", "/v1/results", "/v1/files", "/v1/batches"} {
			status, _, body := l.do(key, "GET", path, "", nil)
			require.Equal(t, 200, status)
			require.NotContains(t, string(body), `"/`+name+`/`, path)
			for other := range tenants {
				if other != name {
					require.NotContains(t, string(body), "of "+other, path)
					require.NotContains(t, string(body), "only-"+other, path)
					require.NotContains(t, string(body), batches[other], path)
				}
			}
		}
		for _, path := range []string{"/v1/tasks/" + batches[name] + "-0/events", "/v1/tasks/same/events"} {
			_, _, body := l.do(key, "GET", path, "", nil)
			require.NotContains(t, string(body), "/"+name+"/", path)
		}
		_, _, refused := l.do(key, "POST", "/v1/tasks", "application/json", []byte(`[{"task_id":"same","prompt":"other"}]`))
		require.Contains(t, string(refused), "conflict")
		require.NotContains(t, string(refused), "/"+name+"/")
		require.Len(t, l.ask(key, "GET", "/v1/tasks?state=pending", nil, 200)["tasks"], 1)
		require.Len(t, l.ask(key, "GET", "/v1/files", nil, 200)["data"], 2, "input and output")
		require.Len(t, l.ask(key, "GET", "/v1/batches", nil, 200)["data"], 1)
		status, _, lines := l.do(key, "GET", "/v1/results?batch="+batches[name], "", nil)
		require.Equal(t, 200, status)
		require.Equal(t, 3, strings.Count(string(lines), `"batch_id":"`+batches[name]+`","custom_id":"c`), "%s", lines)
		counts := l.ask(key, "GET", "/v1/status", nil, 200)["tasks"].(map[string]any)
		require.EqualValues(t, 1, counts["pending"], name)
		require.EqualValues(t, 4, counts["completed"], "one task and three lines")
		for other := range tenants {
			if other == name {
				continue
			}
			whole := "/" + other + "/"
			if other == "default" {
				whole = ""
			}
			for _, c := range []struct{ method, path string }{
				{"GET", "/v1/tasks/only-" + other}, {"POST", "/v1/tasks/only-" + other + "/cancel"}, {"GET", "/v1/tasks/only-" + other + "/events"},
				{"GET", "/v1/tasks/" + url.PathEscape(whole+"only-"+other)}, {"GET", "/v1/tasks/" + url.PathEscape("../"+other+"/same")},
				{"GET", "/v1/batches/" + batches[other]}, {"POST", "/v1/batches/" + batches[other] + "/cancel"}, {"POST", "/v1/batches/" + batches[other] + "/retry"},
				{"GET", "/v1/batches/" + url.PathEscape(whole+batches[other])}, {"GET", "/v1/results?batch=" + batches[other]}, {"GET", "/v1/tasks/" + batches[other] + "-0"},
				{"GET", "/v1/files/" + fileOf(l, tenants[other], 0)}, {"DELETE", "/v1/files/" + fileOf(l, tenants[other], 0)}, {"GET", "/v1/files/" + fileOf(l, tenants[other], 1) + "/content"},
				{"GET", "/v1/files/" + url.PathEscape(whole+fileOf(l, tenants[other], 1)) + "/content"},
			} {
				l.ask(key, c.method, c.path, nil, 404)
			}
			body := map[string]any{"input_file_id": fileOf(l, tenants[other], 1), "endpoint": "/v1/chat/completions", "completion_window": "24h"}
			l.ask(key, "POST", "/v1/batches", body, 404)
			st := l.ask(key, "POST", "/autoglm.actor.v1.ActorService/State", map[string]any{"kind": "account", "id": whole + "same"}, 200)
			if whole != "" {
				require.Empty(t, st["version"], "no such actor")
			}
		}
	}
	l.ask(tenants["acme"], "POST", "/v1/tasks", map[string]any{"prompt": "x", "data_url": "file:///etc/hostname"}, 403)
	require.NotContains(t, l.log.String(), "secret of", "a prompt is in the log")
	for _, key := range tenants {
		require.NotContains(t, l.log.String(), key[20:], "a key is in the log")
	}
}

// fileOf is the id of one of a tenant's files, the newest first.
func fileOf(l *locked, key string, i int) string {
	l.t.Helper()
	return l.ask(key, "GET", "/v1/files", nil, 200)["data"].([]any)[i].(map[string]any)["id"].(string)
}

// runBatch runs three lines and returns the batch's id.
func runBatch(t *testing.T, l *locked, name, key string, callback ...string) string {
	t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	require.NoError(t, w.WriteField("purpose", "batch"))
	part, err := w.CreateFormFile("file", "in.jsonl")
	require.NoError(t, err)
	for i := range 3 {
		fmt.Fprintf(part, `{"custom_id":"c%d of %s","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"line of %s"}]}}`+"\n", i, name, name)
	}
	require.NoError(t, w.Close())
	status, _, body := l.do(key, "POST", "/v1/files", w.FormDataContentType(), form.Bytes())
	require.Equal(t, 200, status, "%s", body)
	var in struct{ ID string }
	require.NoError(t, json.Unmarshal(body, &in))
	wish := map[string]any{"input_file_id": in.ID, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
	for _, u := range callback {
		wish["callback_url"] = u
	}
	b := l.ask(key, "POST", "/v1/batches", wish, 200)
	require.Equal(t, in.ID, b["input_file_id"])
	id := b["id"].(string)
	changed, stop := l.n.batches.Watch(wholeBatch(name, id))
	defer stop()
	for {
		b = l.ask(key, "GET", "/v1/batches/"+id, nil, 200)
		if b["status"] == "completed" {
			break
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("the batch did not end")
		}
	}
	_, _, out := l.do(key, "GET", "/v1/files/"+b["output_file_id"].(string)+"/content", "", nil)
	require.Equal(t, 3, strings.Count(string(out), " of "+name+`","response"`), "%s", out)
	require.NotContains(t, string(out), "/"+name+"/")
	return id
}

func wholeBatch(name, id string) string {
	if name == "default" {
		return id
	}
	return "/" + name + "/" + id
}

func TestKeysLiveAndEnd(t *testing.T) {
	l := bootLocked(t, nil)
	admin := l.key("acme", "admin")
	made := l.ask(admin, "POST", "/v1/keys", map[string]any{"name": "ci", "role": "submit", "expires_in": "1h", "rate": 100}, 201)
	key, id := made["key"].(string), made["id"].(string)
	l.ask(key, "GET", "/v1/tasks", nil, 200)
	status, _, body := l.do(admin, "GET", "/v1/keys", "", nil)
	require.Equal(t, 200, status)
	require.NotContains(t, string(body), key[20:], "a key is shown once")
	require.NotContains(t, string(body), apikey.Hash(key))
	require.Contains(t, string(body), id)

	rotated := l.ask(admin, "POST", "/v1/keys/"+id+"/rotate", map[string]any{"keep_old_for": "1h"}, 200)["key"].(string)
	l.ask(key, "GET", "/v1/tasks", nil, 200)
	l.ask(rotated, "GET", "/v1/tasks", nil, 200)
	last := l.ask(admin, "POST", "/v1/keys/"+id+"/rotate", nil, 200)["key"].(string)
	l.ask(key, "GET", "/v1/tasks", nil, 401)
	l.ask(rotated, "GET", "/v1/tasks", nil, 401)
	l.ask(last, "GET", "/v1/tasks", nil, 200)

	beta := l.key("beta", "admin")
	for _, path := range []string{"/v1/keys/" + id, "/v1/keys/" + id + "/rotate", "/v1/keys/" + id + "/revoke"} {
		method := "POST"
		if strings.HasSuffix(path, id) {
			method = "GET"
		}
		l.ask(beta, method, path, nil, 404)
	}
	l.ask(last, "GET", "/v1/tasks", nil, 200)
	require.Equal(t, "revoked", l.ask(l.root, "POST", "/v1/keys/"+id+"/revoke", nil, 200)["state"])
	l.ask(last, "GET", "/v1/tasks", nil, 401)
	l.ask(admin, "POST", "/v1/keys/"+id+"/revoke", nil, 200)
	l.ask(admin, "POST", "/v1/keys/"+id+"/rotate", nil, 409)
	l.ask(admin, "POST", "/v1/keys/nosuchkeyatall/revoke", nil, 404)

	acts := func(key, query string) (list []string) {
		for _, e := range l.ask(key, "GET", "/v1/audit"+query, nil, 200)["entries"].([]any) {
			e := e.(map[string]any)
			require.NotEmpty(t, e["ended_at"])
			list = append(list, fmt.Sprint(e["tenant"], " ", e["act"], " ", e["error"] != nil))
		}
		return list
	}
	require.Equal(t, []string{"acme key.rotate true", "acme key.revoke false", "default key.revoke false", "acme key.rotate false", "acme key.rotate false", "acme key.create false", "default key.create false"}, acts(admin, ""))
	require.Equal(t, []string{"default key.create false"}, acts(beta, ""))
	require.Len(t, acts(l.root, ""), 8)
	require.Len(t, acts(l.root, "?tenant=acme"), 7)
	require.Len(t, acts(l.root, "?limit=3"), 3)
	require.NotContains(t, l.log.String(), last[20:])
}

// TestASinkHasItsTenantsResults: the operator makes one for a tenant, and only that tenant's results come.
func TestASinkHasItsTenantsResults(t *testing.T) {
	dir := t.TempDir()
	l := bootLocked(t, func(c *Config) { c.Sink.AllowedDirs = []string{dir} })
	tenants := map[string]string{"acme": l.key("acme", "submit"), "beta": l.key("beta", "admin"), "default": l.root}
	for name, key := range tenants {
		for i := range 3 {
			id := fmt.Sprint(name, i)
			l.ask(key, "POST", "/v1/tasks", map[string]any{"task_id": id, "prompt": "x"}, 201)
			l.ask(key, "GET", "/v1/tasks/"+id+"?wait=20s", nil, 200)
		}
	}
	require.NoError(t, os.Mkdir(dir+"/acme", 0o700))
	def := map[string]any{"name": "out", "url": "file://" + dir + "/acme", "every": "10ms"}
	l.ask(tenants["beta"], "POST", "/v1/sinks", def, 403)
	l.ask(tenants["acme"], "GET", "/v1/sinks", nil, 403)
	l.ask(l.root, "POST", "/v1/sinks?tenant=acme", def, 201)
	l.ask(l.root, "POST", "/v1/sinks?tenant=a/b", def, 422)
	l.ask(l.root, "GET", "/v1/sinks/out", nil, 404)
	require.Empty(t, l.ask(l.root, "GET", "/v1/sinks?tenant=default", nil, 200)["sinks"])
	all := l.ask(l.root, "GET", "/v1/sinks", nil, 200)["sinks"].([]any)
	require.Len(t, all, 1, "the operator sees those of all tenants")
	require.Equal(t, "acme", all[0].(map[string]any)["tenant"])
	require.Contains(t, l.ask(l.root, "POST", "/v1/sinks?tenant=acne", def, 404)["detail"], "no such tenant")
	require.Len(t, l.ask(l.root, "GET", "/v1/sinks?tenant=acme", nil, 200)["sinks"], 1)
	changed, stop := l.n.sys.Router.Watch(sink.Key("/acme/out"))
	defer stop()
	for l.ask(l.root, "GET", "/v1/sinks/out?tenant=acme", nil, 200)["delivered"] != float64(3) {
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("three results did not come")
		}
	}
	files, err := os.ReadDir(dir + "/acme")
	require.NoError(t, err)
	ids := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(dir + "/acme/" + f.Name())
		require.NoError(t, err)
		for line := range strings.Lines(string(b)) {
			var r struct {
				ID string `json:"task_id"`
			}
			require.NoError(t, json.Unmarshal([]byte(line), &r))
			ids[r.ID] = true
		}
	}
	require.Equal(t, map[string]bool{"acme0": true, "acme1": true, "acme2": true}, ids)
	l.ask(l.root, "DELETE", "/v1/sinks/out?tenant=acme", nil, 204)

	table := map[string]any{"name": "db", "url": "sqlite://" + dir + "/r.db"}
	l.ask(l.root, "POST", "/v1/sinks?tenant=acme", table, 201)
	l.ask(l.root, "POST", "/v1/sinks?tenant=beta", table, 409)
	table["table"] = "beta_results"
	l.ask(l.root, "POST", "/v1/sinks?tenant=beta", table, 201)
}

// TestATenantVerifiesItsOwnCallbacks, by a secret that its administrators can see and others cannot; what the operator's webhooks hear is
// signed with the operator's.
func TestATenantVerifiesItsOwnCallbacks(t *testing.T) {
	type post struct {
		path string
		body []byte
		head http.Header
	}
	posts := make(chan post, 16)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		posts <- post{r.URL.Path, b, r.Header}
	}))
	defer receiver.Close()
	l := bootLocked(t, func(c *Config) {
		c.Callback.AllowedNets, c.Webhook.URLs = []string{"127.0.0.0/8"}, []string{receiver.URL + "/operator"}
	})
	admin, submit, beta := l.key("acme", "admin"), l.key("acme", "submit"), l.key("beta", "admin")
	l.ask(submit, "GET", "/v1/callback-secret", nil, 403)
	l.ask(beta, "GET", "/v1/callback-secret?tenant=acme", nil, 403)
	secrets := map[string]string{}
	for whose, key := range map[string]string{"acme": admin, "beta": beta, "default": l.root} {
		secrets[whose] = l.ask(key, "GET", "/v1/callback-secret", nil, 200)["secret"].(string)
	}
	require.Equal(t, secrets["acme"], l.ask(l.root, "GET", "/v1/callback-secret?tenant=acme", nil, 200)["secret"])
	file, err := os.ReadFile(filepath.Join(l.n.cfg.DataDir, "callback.secret"))
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(file)), secrets["default"])
	shown := l.ask(admin, "GET", "/v1/audit", nil, 200)["entries"].([]any)
	require.Equal(t, "callback_secret.show", shown[0].(map[string]any)["act"])

	l.ask(submit, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "x", "callback_url": receiver.URL + "/task"}, 201)
	runBatch(t, l, "acme", submit, receiver.URL+"/batch")
	for range 3 {
		var p post
		select {
		case p = <-posts:
		case <-t.Context().Done():
			t.Fatal("a callback is missing")
		}
		signer := "acme"
		if p.path == "/operator" {
			signer = "default"
		}
		for whose, s := range secrets {
			wh, err := webhooks.NewWebhook(s)
			require.NoError(t, err)
			require.Equal(t, whose == signer, wh.Verify(p.body, p.head) == nil, "%s by %s", p.path, whose)
		}
		require.Contains(t, string(p.body), `"tenant":"acme"`)
	}
}

// TestARefusedAttemptIsWrittenDown: who tries what is for administrators, with a key that may not or not any more, is in the audit log.
func TestARefusedAttemptIsWrittenDown(t *testing.T) {
	l := bootLocked(t, nil)
	submit, admin := l.key("acme", "submit"), l.key("acme", "admin")
	made := l.ask(admin, "POST", "/v1/keys", map[string]any{"name": "gone", "role": "admin"}, 201)
	gone, id := made["key"].(string), made["id"].(string)
	l.ask(admin, "POST", "/v1/keys/"+id+"/revoke", nil, 200)
	entries := func(key string) (list []string) {
		for _, e := range l.ask(key, "GET", "/v1/audit", nil, 200)["entries"].([]any) {
			if e := e.(map[string]any); e["act"] == "refused" {
				require.NotEmpty(t, e["ended_at"])
				require.Contains(t, e["remote"], "127.0.0.1:")
				list = append(list, fmt.Sprintf("%v %v: %v: %v", e["tenant"], e["by"], e["object"], e["error"]))
			}
		}
		return list
	}
	l.ask(submit, "GET", "/v1/tasks", nil, 200)
	l.ask(submit, "GET", "/v1/cluster", nil, 403)
	l.ask("", "POST", "/v1/keys", nil, 401)
	require.Empty(t, entries(l.root), "these are no attempts to administer")
	l.ask(submit, "POST", "/v1/keys", map[string]any{"name": "x", "role": "admin"}, 403)
	l.ask(admin, "POST", "/v1/admin/backup", map[string]any{"dir": "/tmp/x"}, 403)
	l.ask(admin, "POST", "/v1/keys", map[string]any{"name": "x", "role": "admin", "tenant": "beta"}, 403)
	status, _, body := l.do(gone, "POST", "/v1/keys", "application/json", []byte("{}"))
	require.Equal(t, 401, status)
	require.Contains(t, string(body), "the API key was revoked at 20")
	stranger, _, err := apikey.NewRoot()
	require.NoError(t, err)
	l.ask(stranger, "POST", "/v1/keys", nil, 401)
	ids := map[string]string{}
	for name, key := range map[string]string{"submit": submit, "admin": admin} {
		ids[name], _ = apikey.ID(key)
	}
	ofAcme := []string{
		"acme " + id + ": POST /v1/keys: the API key was revoked at", "acme " + ids["admin"] + ": a key of tenant beta: only the operator makes keys of other tenants",
		"acme " + ids["admin"] + ": POST /v1/admin/backup: this is for the operator of the cluster", "acme " + ids["submit"] + `: POST /v1/keys: the role of this key is "submit", and "admin" is needed`,
	}
	got := entries(admin)
	require.Len(t, got, len(ofAcme))
	for i := range got {
		require.True(t, strings.HasPrefix(got[i], ofAcme[i]), "%s, not %s", got[i], ofAcme[i])
	}
	require.Contains(t, entries(l.root)[0], "default unknown: POST /v1/keys: the API key is none of this cluster")
	for range 20 {
		l.ask(submit, "POST", "/v1/keys", nil, 403)
	}
	require.LessOrEqual(t, len(entries(admin)), len(ofAcme)+2, "nobody fills the disk with them")
}

// TestALostAnswerOfARotation: the client asks again under the same idempotency key, and the key before stays good.
func TestALostAnswerOfARotation(t *testing.T) {
	l := bootLocked(t, nil)
	post := func(path, body, request string) (string, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+l.n.HTTPAddr()+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+l.root)
		req.Header.Set("Idempotency-Key", request)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		var k struct{ ID, Key string }
		require.NoError(t, json.NewDecoder(res.Body).Decode(&k))
		return k.ID, k.Key
	}
	id, lost := post("/v1/keys", `{"name":"ci","role":"read"}`, "a")
	again, key := post("/v1/keys", `{"name":"ci","role":"read"}`, "a")
	require.Equal(t, id, again, "one key")
	l.ask(key, "GET", "/v1/tasks", nil, 200)
	l.ask(lost, "GET", "/v1/tasks", nil, 401)
	_, lost = post("/v1/keys/"+id+"/rotate", `{"keep_old_for":"1h"}`, "b")
	_, next := post("/v1/keys/"+id+"/rotate", `{"keep_old_for":"1h"}`, "b")
	l.ask(key, "GET", "/v1/tasks", nil, 200)
	l.ask(next, "GET", "/v1/tasks", nil, 200)
	l.ask(lost, "GET", "/v1/tasks", nil, 401)
}

// TestNobodyShutsTheOthersOut: a tenant holds at most half of the long requests of a node.
func TestNobodyShutsTheOthersOut(t *testing.T) {
	l := bootLocked(t, func(c *Config) { c.HTTP.StreamsMax = 4 })
	acme, beta := l.key("acme", "read"), l.key("beta", "submit")
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.n.HTTPAddr()+"/v1/results?follow=true", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+acme)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, 200, res.StatusCode)
	}
	l.ask(acme, "GET", "/v1/results?follow=true", nil, 429)
	l.ask(beta, "POST", "/v1/chat/completions", map[string]any{"model": "m", "messages": []any{map[string]any{"role": "user", "content": "x"}}}, 200)
}
