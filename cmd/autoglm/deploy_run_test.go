package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/node/api/client"
)

const (
	deployFormsWithin = 60 * time.Second // a cluster of three processes on a busy machine; 4 s on an idle one
	deployPoll        = 20 * time.Millisecond
)

// deployed is one node of a deployment, moved to this machine: its host is an address of loopback, its ports are
// free ones, its folders are temporary. All else is as the file has it, but for the engine, which is echo.
type deployed struct {
	name  string
	args  []string
	env   map[string]string
	grace time.Duration // from SIGTERM to the kill

	url string
	cmd *exec.Cmd
	log string
	key string // of the operator
}

// loopback finds n addresses of this machine and two ports that are free on all of them: for the API, and the first
// of three for the other nodes.
func loopback(t *testing.T, n int) (addrs []string, api, gossip int) {
	t.Helper()
	for range 50 {
		x, y := 64+rand.IntN(128), rand.IntN(256)
		gossip = 20000 + rand.IntN(10000)
		api = gossip + 10
		addrs = nil
		var open []io.Closer
		taken := func() error {
			for i := range n {
				addr := fmt.Sprintf("127.%d.%d.%d", x, y, i+1)
				addrs = append(addrs, addr)
				for _, p := range []int{api, gossip, gossip + 1, gossip + 2} {
					l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(p)))
					if err != nil {
						return err
					}
					open = append(open, l)
				}
				u, err := net.ListenPacket("udp", net.JoinHostPort(addr, strconv.Itoa(gossip)))
				if err != nil {
					return err
				}
				open = append(open, u)
			}
			return nil
		}()
		for _, c := range open {
			require.NoError(t, c.Close())
		}
		if taken == nil {
			return addrs, api, gossip
		}
	}
	t.Fatal("no free ports on loopback")
	return nil, 0, 0
}

// moved rewrites the hosts and folders of a setting. hosts maps host:port, a bare host or a folder.
type moved []string

func (m moved) value(s string) string {
	for i := 0; i < len(m); i += 2 {
		if m[i] == s { // a bare host is replaced as a whole value only
			return m[i+1]
		}
	}
	var pairs []string
	for i := 0; i < len(m); i += 2 {
		if strings.ContainsAny(m[i], ":/") {
			pairs = append(pairs, m[i], m[i+1])
		}
	}
	return strings.NewReplacer(pairs...).Replace(s)
}

// addrOf is host:port on the address of node i.
func addrOf(addrs []string, i, port int) string {
	return net.JoinHostPort(addrs[i], strconv.Itoa(port))
}

func (d *deployed) move(t *testing.T, m moved, api string) {
	t.Helper()
	for name, v := range d.env {
		d.env[name] = m.value(v)
	}
	d.env["AUTOGLM_ENGINES"] = "echo"
	d.url = "http://" + api
	d.log = filepath.Join(t.TempDir(), d.name+".log")
}

func (d *deployed) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer log.Close() // the child has its own
	d.cmd = exec.Command(built(t, "autoglm"), d.args...)
	for name, v := range d.env {
		d.cmd.Env = append(d.cmd.Env, name+"="+v)
	}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, d.cmd.Start())
	cmd := d.cmd
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// probe is what a health check sees of a path: the status, 0 when nobody answers.
func (d *deployed) probe(path string) int {
	c := http.Client{Timeout: 5 * time.Second}
	res, err := c.Get(d.url + path)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// await polls another process.
func (d *deployed) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(deployFormsWithin); !ok(); time.Sleep(deployPoll) {
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(d.log)
			t.Fatalf("%s: %s: not within %v\n%s", d.name, what, deployFormsWithin, tail(log, 4000))
		}
	}
}

func (d *deployed) ready(t *testing.T) {
	t.Helper()
	d.await(t, "ready", func() bool { return d.probe("/readyz") == http.StatusOK })
	require.Equal(t, http.StatusOK, d.probe("/healthz"))
}

// stop sends SIGTERM, as all three kinds of deployment do, and wants the node gone by itself in its grace time.
func (d *deployed) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- d.cmd.Wait() }()
	select {
	case err := <-ended:
		log, _ := os.ReadFile(d.log)
		require.NoError(t, err, "%s\n%s", d.name, tail(log, 4000))
	case <-time.After(d.grace):
		t.Fatalf("%s does not stop in its %v", d.name, d.grace)
	}
}

func (d *deployed) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(d.url, client.WithAPIKey(d.key))
	require.NoError(t, err)
	return c
}

// threefold tells whether the cluster can lose a node: what the README has an operator wait for.
func (d *deployed) threefold(t *testing.T) bool {
	v, err := d.client(t).Cluster(t.Context())
	if err != nil || whole(v) != "" {
		return false
	}
	for _, s := range v.Shards {
		if len(s.Replicas) < 3 {
			return false
		}
	}
	return len(v.Shards) > 0
}

// runDeployed starts the nodes at once, whose cluster has its folder in keys, has them answer a task, and restarts some of them in turn, as a rollout does.
func runDeployed(t *testing.T, nodes []*deployed, keys string, restarts int, whenReady func()) {
	t.Helper()
	key, err := os.ReadFile(pki.AdminKeyFile(keys))
	require.NoError(t, err)
	for _, d := range nodes {
		d.key = strings.TrimSpace(string(key))
		d.start(t)
	}
	for _, d := range nodes {
		d.ready(t)
	}
	whenReady()
	nodes[0].await(t, "three replicas", func() bool { return nodes[0].threefold(t) })
	later := time.Now().Add(time.Hour)
	spec := &task.Spec{ID: "deployed", Prompt: "hello"}
	for _, s := range []*task.Spec{spec, {ID: "later", Prompt: "waits", NotBefore: &later}} { // one waits, for its metric
		_, err := nodes[0].client(t).Submit(t.Context(), s)
		require.NoError(t, err)
	}
	answered := func(d *deployed) func() bool {
		return func() bool {
			v, err := d.client(t).Get(t.Context(), spec.ID)
			return err == nil && v.State == task.Completed
		}
	}
	nodes[1].await(t, "the answer", answered(nodes[1]))
	checkMetrics(t, nodes)
	for i, d := range nodes[:restarts] {
		d.stop(t)
		other := nodes[(i+1)%len(nodes)]
		other.await(t, "the answer without "+d.name, answered(other))
		d.start(t)
		d.ready(t)
		d.await(t, "three replicas again", func() bool { return d.threefold(t) })
	}
	for _, d := range nodes {
		d.stop(t)
	}
}

func skipDeployRun(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
}

// The containers of docker-compose.yml as processes: first init, then the three nodes, then the health check.
func TestDeployComposeRuns(t *testing.T) {
	skipDeployRun(t)
	f := readCompose(t)
	dir := t.TempDir()
	addrs, api, gossip := loopback(t, 3)
	init := f.Services["init"]
	volume := filepath.Join(dir, "pki")
	require.NoError(t, os.Mkdir(volume, 0o700))
	runInit(t, moved{init.Volumes[0].Target, volume}, init.Command)
	all := moved{}
	names := []string{"a", "b", "c"}
	for i, name := range names {
		all = append(all, name, addrs[i], name+":7946", addrOf(addrs, i, gossip))
	}
	var nodes []*deployed
	for i, name := range names {
		s := f.Services[name]
		grace, err := time.ParseDuration(s.StopGracePeriod)
		require.NoError(t, err)
		d := &deployed{name: name, args: s.Command, env: s.Environment, grace: grace}
		d.move(t, append(moved{"0.0.0.0:7946", addrOf(addrs, i, gossip), "0.0.0.0:8080", addrOf(addrs, i, api),
			s.Volumes[0].Target, filepath.Join(dir, name), s.Volumes[1].Target, filepath.Join(volume, s.Volumes[1].Volume.SubPath)}, all...), addrOf(addrs, i, api))
		nodes = append(nodes, d)
	}
	health := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, built(t, "autoglm"), f.Services["a"].Healthcheck.Test[2:]...)
		cmd.Env = []string{"AUTOGLM_SERVER=" + nodes[0].url}
		return cmd.Run()
	}
	require.Error(t, health(), "nobody is there yet")
	runDeployed(t, nodes, filepath.Join(volume, "pki"), 1, func() { require.NoError(t, health()) })
}

func runInit(t *testing.T, m moved, args []string) {
	t.Helper()
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = m.value(a)
	}
	out, err := exec.CommandContext(t.Context(), built(t, "autoglm"), words...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// The pods of the StatefulSet as processes: the projected volume is laid out from Secrets as the README makes them.
func TestDeployKubernetesRuns(t *testing.T) {
	skipDeployRun(t)
	k := readKubernetes(t)
	pod := k.set.Spec.Template.Spec
	c := pod.Containers[0]
	dir := t.TempDir()
	addrs, api, gossip := loopback(t, k.set.Spec.Replicas)
	var names, seeds []string
	for i, addr := range addrs {
		names = append(names, fmt.Sprintf("%s-%d", k.set.Metadata.Name, i))
		seeds = append(seeds, net.JoinHostPort(addr, strconv.Itoa(gossip)))
	}
	secrets := filepath.Join(dir, "autoglm-pki")
	admin, err := newAdminKey()
	require.NoError(t, err)
	require.NoError(t, pki.Init(secrets, pki.InitOptions{Nodes: names, Admin: admin}))
	// kubectl create secret generic autoglm-identity-N --from-file=autoglm-pki/nodes/autoglm-N
	projected := filepath.Join(dir, "projected")
	for _, src := range pod.Volumes[1].Projected.Sources {
		n, ok := strings.CutPrefix(src.Secret.Name, "autoglm-identity-")
		require.True(t, ok)
		for _, item := range src.Secret.Items {
			b, err := os.ReadFile(filepath.Join(secrets, "nodes", "autoglm-"+n, item.Key))
			require.NoError(t, err)
			to := filepath.Join(projected, item.Path)
			require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o700))
			require.NoError(t, os.WriteFile(to, b, os.FileMode(pod.Volumes[1].Projected.DefaultMode)))
		}
	}
	var nodes []*deployed
	for i, name := range names {
		env := k8sEnv(t, c, name, addrs[i])
		m := moved{"0.0.0.0:7946", seeds[i], "0.0.0.0:8080", addrOf(addrs, i, api), k.set.Spec.ServiceName + ":7946", strings.Join(seeds, ",")}
		for _, v := range c.VolumeMounts {
			switch v.Name {
			case "data":
				m = append(m, v.MountPath, filepath.Join(dir, name))
			case "identities":
				m = append(m, v.MountPath, filepath.Join(projected, expand(t, v.SubPathExpr, env)))
			}
		}
		grace := time.Duration(pod.TerminationGracePeriodSeconds-c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
		d := &deployed{name: name, args: c.Args, env: env, grace: grace}
		d.move(t, m, addrOf(addrs, i, api))
		nodes = append(nodes, d)
	}
	runDeployed(t, nodes, secrets, len(nodes), func() {}) // a rollout restarts all of them
}

// The unit's command on three machines that share autoglm.yaml and differ in autoglm.env.
func TestDeploySystemdRuns(t *testing.T) {
	skipDeployRun(t)
	u := readUnit(t)
	dir := t.TempDir()
	addrs, api, gossip := loopback(t, 3)
	names := []string{"a", "b", "c"}
	keys := filepath.Join(dir, "autoglm-pki")
	admin, err := newAdminKey()
	require.NoError(t, err)
	require.NoError(t, pki.Init(keys, pki.InitOptions{Nodes: names, Admin: admin}))
	all := moved{}
	for i, name := range names {
		host := name + ".example.net"
		all = append(all, host, addrs[i], host+":7946", addrOf(addrs, i, gossip))
	}
	grace, err := time.ParseDuration(u["Service.TimeoutStopSec"][0])
	require.NoError(t, err)
	var nodes []*deployed
	for i, name := range names {
		etc := filepath.Join(dir, name, "etc")
		require.NoError(t, os.MkdirAll(etc, 0o700))
		m := append(moved{"0.0.0.0:7946", addrOf(addrs, i, gossip), "127.0.0.1:8080", addrOf(addrs, i, api),
			"/etc/autoglm/identity", filepath.Join(keys, "nodes", name), "/etc/autoglm", etc,
			"/var/lib/" + u["Service.StateDirectory"][0], filepath.Join(dir, name, "lib")}, all...)
		require.NoError(t, os.WriteFile(filepath.Join(etc, "autoglm.yaml"), []byte(m.value(string(readDeploy(t, "systemd", "autoglm.yaml")))), 0o600))
		env := readEnvFile(t)
		env["AUTOGLM_CLUSTER_ADVERTISE"] = name + ".example.net" // as the README has it changed on each machine
		d := &deployed{name: name, env: env, grace: grace}
		for _, a := range strings.Fields(u["Service.ExecStart"][0])[1:] {
			d.args = append(d.args, m.value(a))
		}
		d.move(t, m, addrOf(addrs, i, api))
		nodes = append(nodes, d)
	}
	runDeployed(t, nodes, keys, 1, func() {})
}
