package node

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestDefaultIsValidAndDocumented(t *testing.T) {
	c := Default()
	require.NoError(t, c.Validate())
	for _, s := range Settings() {
		require.NotEmpty(t, s.Doc, s.Key)
	}
}

func writeConfig(t *testing.T, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "autoglm.yaml")
	require.NoError(t, os.WriteFile(path, []byte(yaml), 0o600))
	return path
}

func TestLoadPrecedence(t *testing.T) {
	path := writeConfig(t, `
data_dir: /file
batch: {size_max: 7, age_max: 9ms}
task: {timeout: 2m}
disk_reserve: 1GiB
http: {body_max: 1000000}
engines: [echo, {url: "http://gpu:8000/v1", name: gpu, models: [glm-4], concurrency: 64}]
`)
	env := []string{"AUTOGLM_BATCH_SIZE_MAX=8", "AUTOGLM_TASK_TIMEOUT=3m", "AUTOGLM_SOURCE_ALLOWED_DIRS=/a, /b", "AUTOGLM_SERVER=x", "PATH=/bin"}
	c, unknown, err := Load(path, env, map[string]any{"task.timeout": "4m"})
	require.NoError(t, err)
	require.Equal(t, []string{"AUTOGLM_SERVER"}, unknown)
	require.Equal(t, "/file", c.DataDir)
	require.Equal(t, 8, c.Batch.SizeMax)
	require.Equal(t, 9*time.Millisecond, c.Batch.AgeMax)
	require.Equal(t, Default().Batch.TokensMax, c.Batch.TokensMax)
	require.Equal(t, 4*time.Minute, c.Task.Timeout)
	require.Equal(t, Size(1<<30), c.DiskReserve)
	require.Equal(t, int64(1e6), c.HTTP.BodyMax)
	require.Equal(t, []string{"/a", "/b"}, c.Source.AllowedDirs)
	require.Equal(t, []EngineConfig{{URL: "echo"}, {URL: "http://gpu:8000/v1", Name: "gpu", Models: []string{"glm-4"}, Concurrency: 64}}, c.Engines)

	c, _, err = Load("", []string{"AUTOGLM_ENGINES=echo,http://a:1"}, nil)
	require.NoError(t, err)
	require.Equal(t, []EngineConfig{{URL: "echo"}, {URL: "http://a:1"}}, c.Engines)
	c, _, err = Load("", []string{"AUTOGLM_ENGINES=echo"}, map[string]any{"engines": []string{"http://b:1"}})
	require.NoError(t, err)
	require.Equal(t, []EngineConfig{{URL: "http://b:1"}}, c.Engines)
}

func TestPrintedConfigLoads(t *testing.T) {
	c := Default()
	c.Engines = append(c.Engines, EngineConfig{URL: "http://gpu:8000", Name: "gpu", Models: []string{"a", "b"}, Timeout: time.Minute})
	c.Engines = append(c.Engines, EngineConfig{URL: EngineCommand, Name: "own", Command: []string{"serve it", "--port={{.Port}}", `"quoted"`}, Env: map[string]string{"A": "b c", "PORT": "{{.Port}}"},
		Limits: &LimitsConfig{CPU: 1.5, Memory: 8 << 30, Nice: 5}})
	c.Source.AllowedDirs = []string{"/data sets"}
	c.Sink = SinkConfig{AllowedDirs: []string{"/srv/results"}, Allow: []string{"db", "minio:9000"}}
	c.Scheduling = SchedConfig{Priorities: PrioritiesWeighted, Ageing: time.Minute, Ratio: 1.5, Hedge: 4, HedgeAfter: time.Second, HedgeShare: 2.5, Weights: []string{"acme=3"}}
	c.Cluster.Identity = "certs"
	c.Cluster.Join = []string{"b:7946", "c:7946"}
	c.DiskReserve = 1e9
	var b strings.Builder
	require.NoError(t, c.Print(&b))
	got, unknown, err := Load(writeConfig(t, b.String()), nil, nil)
	require.NoError(t, err, b.String())
	require.Empty(t, unknown)
	if got.HTTP.AllowedHosts == nil || len(got.HTTP.AllowedHosts) == 0 { // [] and nothing are the same
		got.HTTP.AllowedHosts, got.Source.AllowedNets, got.Callback.AllowedNets, got.Webhook.URLs, got.Model.Allowed, got.Tools.AllowedNets = nil, nil, nil, nil, nil, nil
	}
	require.NotContains(t, b.String(), "b c", "a variable may hold a secret")
	c.Engines[len(c.Engines)-1].Env = map[string]string{"A": "(set)", "PORT": "(set)"}
	require.Equal(t, c, got)

	c.Callback.Secret = "whsec_c2VjcmV0"
	b.Reset()
	require.NoError(t, c.Print(&b))
	require.NotContains(t, b.String(), "c2Vjc")
	require.Contains(t, b.String(), "# secret: (set, not shown)")
}

func TestLoadRefuses(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"batch: {size_mx: 3}", "batch.size_mx: is no setting (did you mean batch.size_max"},
		{"colour: red", "colour: is no setting (autoglm serve --print-config lists them all"},
		{"foo: {bar: 1}", "foo.bar: is no setting (autoglm serve --print-config lists them all"},
		{"size_max: 3", "size_max: is no setting (did you mean batch.size_max"},
		{"scheduling: {priorities: sometimes}", "scheduling.priorities: is sometimes (use strict or weighted"},
		{"scheduling: {ageing: 1ms}", "scheduling.ageing: is 1ms (use 1s or more, or 0s"},
		{"scheduling: {priorities: weighted, ratio: 1}", "scheduling.ratio: is 1 (use more than 1"},
		{"scheduling: {hedge: 1}", "scheduling.hedge: is 1 (use 1.5 to 1000, or 0 for off"},
		{"scheduling: {hedge_after: -1s}", "scheduling.hedge_after: is -1s (use 0s or more"},
		{"scheduling: {hedge_percent: 0}", "scheduling.hedge_percent: is 0 (use more than 0 and at most 100; scheduling.hedge: 0 turns it off"},
		{"scheduling: {hedge: 4, hedge_percent: 101}", "scheduling.hedge_percent: is 101"},
		{"scheduling: {weights: [acme]}", "\"acme\" is no share: write NAME=NUMBER"},
		{"scheduling: {weights: ['acme=0']}", "\"acme=0\" is no share"},
		{"scheduling: {weights: ['Acme!=2']}", "names no tenant"},
		{"scheduling: {hedge: abc}", "scheduling.hedge: use a number"},
		{"engines: [{url: embedded, limits: {mem: 1GiB}}]", "engines[0].limits.mem: is no setting (did you mean memory)"},
		{"batch: [", "cannot be read: yaml"},
		{"batch: {size_max: many}", "size_max"},
		{"drain: soon", "soon"},
		{"disk_reserve: lots", "is no size"},
		{"engines: [{urll: x}]", "urll"},
		{"disk_reserve: 1MiB", "disk_reserve: is 1MiB (keep at least 64MiB"},
		{"http: {listen: '0.0.0.0:80'}", "http.listen: is 0.0.0.0:80 (other machines reach it, and keys and prompts would go over the network in clear"},
		{"http: {listen: '0.0.0.0:80', allow_plaintext: true}", "access.admin_key: is not set (clients need keys here"},
		{"http: {listen: '0.0.0.0:80', allow_plaintext: true}\naccess: {keys: 'off'}", "access.keys: is off (http.listen is 0.0.0.0:80, which other machines reach"},
		{"http: {tls_cert: c}", "http.tls_cert: is \"c\", tls_key \"\" (name both"},
		{"http: {allowed_hosts: [proxy.example]}", "access.admin_key: is not set (clients need keys here"},
		{"http: {allowed_hosts: [proxy.example]}\naccess: {keys: 'off'}", "access.keys: is off (http.allowed_hosts names a proxy"},
		{"access: {keys: maybe}", "access.keys: is \"maybe\" (use auto"},
		{"access: {keys: required}", "autoglm key root --out"},
		{"access: {admin_key: hunter2}", "access.admin_key: is neither"},
		{"access: {admin_key: a, admin_key_file: b}", "set one of them"},
		{"http: {listen: '127.0.0.1:99999'}", "http.listen: is \"127.0.0.1:99999\" (use a port"},
		{"http: {listen: '127.0.0.1:no'}", "http.listen: is \"127.0.0.1:no\" (use a port"},
		{"http: {listen: ':80'}", "http.listen: is :80 (other machines"},
		{"http: {listen: 'localhost'}", "write host:port"},
		{"http: {chunk_lines: 0}", "http.chunk_lines: is 0 (use 1 or more)"},
		{"engines: []", "engines: is empty (name one"},
		{"engines: [gpu:8000]", "engines[0].url"},
		{"engines: ['http://u:p@gpu']", "u:xxxxx@gpu"},
		{"engines: [echo, echo]", `engines[1].name: is "echo" again`},
		{"engines: [{url: echo, api_key_env: NOT_SET_ANYWHERE}]", "NOT_SET_ANYWHERE, which is not set"},
		{"engines: [{url: echo, concurrency: -1}]", "engines[0].concurrency: is -1"},
		{"model: {path: /no/such.gguf}", "model.path"},
		{"model: {workers: 0}", "model.workers: is 0 (use 1 to 64)"},
		{"model: {load_timeout: 0s}", "model.load_timeout"},
		{"shards: 5000", "shards: is 5000"},
		{"node_id: 'a b'", "node_id"},
		{"data_dir: ''", "data_dir"},
		{"drain: -1s", "drain"},
		{"log: {level: loud}", "log.level"},
		{"log: {format: xml}", "log.format"},
		{"batch: {size_max: 0}", "batch.size_max"},
		{"batch: {tokens_max: 0}", "batch.tokens_max"},
		{"batch: {age_max: -1s}", "batch.age_max"},
		{"task: {timeout: 2h}", "task.timeout: is 2h0m0s (use more than 0s and at most task.timeout_max, which is 1h0m0s)"},
		{"task: {lease_margin: 1ms}", "task.lease_margin"},
		{"task: {attempts: 0}", "task.attempts"},
		{"task: {backoff_min: 2h}", "task.backoff_min"},
		{"source: {allowed_dirs: [here]}", "source.allowed_dirs[0]"},
		{"source: {size_max: 0}", "source.size_max"},
		{"callback: {secret: short}", "callback.secret"},
		{"callback: {attempts: 0}", "callback.attempts"},
		{"store: {memtable: 1MiB}", "store.memtable"},
		{"cluster: {join: ['b:7946']}", "cluster.identity: is empty, and a cluster is to be joined (nodes talk to each other under certificates only"},
		{"cluster: {identity: i, join: [b]}", "cluster.join[0]"},
		{"cluster: {identity: i, expect: 3}", "cluster.expect: is 3, and no other node is named"},
		{"cluster: {identity: i, listen: ':65534'}", "up to 65533"},
		{"cluster: {identity: i, listen: 'here:1'}", "listen on an IP address"},
		{"cluster: {identity: i, advertise: 'a:1'}", "without a port"},
		{"cluster: {replicas: 2}", "use 1, 3 or 5"},
		{"engines: [none]", "only a node of a cluster"},
	} {
		_, _, err := Load(writeConfig(t, tc.yaml), nil, nil)
		require.ErrorContains(t, err, tc.want, tc.yaml)
		require.Equal(t, fault.Invalid, fault.KindOf(err), tc.yaml)
	}
	_, _, err := Load(writeConfig(t, "shards: 5000\ndrain: -1s\nhttp: {chunk_lines: 0, array_max: 0}\nbatch: {size_max: 0, tokens_max: 0}\nwebhook: {urls: [x]}\nsink: {allowed_dirs: [y]}"), nil, nil)
	require.Equal(t, []string{
		"shards is 5000 (use 1 to 1024, or 0 for what the data directory has)", "drain is -1s (use 0s or more)", "http.array_max is 0 (use 1 or more)", "http.chunk_lines is 0 (use 1 or more)",
		"batch.size_max is 0 (use 1 to 4096)", "batch.tokens_max is 0 (use 1 or more)", "webhook.urls is x (use http(s)://host[:port]/path)", `sink.allowed_dirs[0] is "y" (use an absolute path below /)`,
	}, strings.Split(fault.Shown(err), "\n"), "all at once")
	_, _, err = Load(writeConfig(t, "a: 1\nb: 2"), nil, nil)
	require.Len(t, strings.Split(fault.Shown(err), "\n"), 2)
	_, _, err = Load("nowhere.yaml", nil, nil)
	require.ErrorContains(t, err, "no such file")
	_, _, err = Load("", []string{"AUTOGLM_SHARDS=x"}, nil)
	require.ErrorContains(t, err, "hards")
	root := "abcdefghijkm:" + strings.Repeat("0a", 32)
	for _, good := range []string{
		"http: {listen: '0.0.0.0:80', allow_plaintext: true}\naccess: {admin_key: '" + root + "'}",
		"http: {listen: '0.0.0.0:80', tls_cert: c, tls_key: k}\naccess: {admin_key_file: f}",
		"http: {listen: '0.0.0.0:80'}\ncluster: {identity: i}",
		"access: {keys: required, admin_key: '" + root + "'}",
	} {
		_, _, err := Load(writeConfig(t, good), nil, nil)
		require.NoError(t, err, good)
	}
	_, _, err = Load(writeConfig(t, "engines: ['unix:///run/x.sock', 'https://api.example/v4']"), nil, nil)
	require.NoError(t, err)
}

// A zero in any number is either refused or means something that its doc says.
func TestZeroOfEachSettingIsChecked(t *testing.T) {
	may := map[string]bool{"memory_limit": true, "shards": true, "cluster.expect": true, "drain": true, "http.stop_grace": true, "model.ctx": true, "batch.age_max": true, "task.retry_percent": true, "retention.tasks": true, "retention.batches": true, "retention.files": true, "retention.audit": true, "scheduling.ageing": true, "scheduling.hedge": true, "scheduling.hedge_after": true, "source.redirects_max": true, "tools.http_concurrency": true, "tools.wasm_concurrency": true,
		"http.chunk_age": true, "http.stream_retry": true, "http.wait_max": true, "store.block_cache": true, "files.bytes_max": true}
	c := Default()
	walk("", reflect.ValueOf(c), func(key, _ string, v reflect.Value) {
		if k := v.Kind(); k < reflect.Int || k > reflect.Float64 {
			return
		}
		bad := Default()
		walkSet(t, reflect.ValueOf(&bad).Elem(), key)
		if may[key] {
			require.NoError(t, bad.Validate(), key)
		} else {
			require.Error(t, bad.Validate(), key)
		}
	})
}

// walkSet zeroes the field with the key.
func walkSet(t *testing.T, v reflect.Value, key string) {
	done := false
	walk("", v, func(k, _ string, field reflect.Value) {
		if k == key {
			field.SetZero()
			done = true
		}
	})
	require.True(t, done, key)
}

func TestSize(t *testing.T) {
	for in, want := range map[string]Size{"0": 0, "7": 7, "512MiB": 512 << 20, "1 GB": 1e9, "3B": 3, "2TiB": 2 << 40} {
		var s Size
		require.NoError(t, s.UnmarshalText([]byte(in)))
		require.Equal(t, want, s)
		var again Size
		require.NoError(t, again.UnmarshalText([]byte(s.String())))
		require.Equal(t, s, again)
	}
	for _, in := range []string{"", "x", "-1", "1.5GiB", "99999999TiB", "MiB"} {
		var s Size
		require.Error(t, s.UnmarshalText([]byte(in)), in)
	}
}
