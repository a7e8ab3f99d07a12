package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node"
)

// The files of docs/deploy, held against the program: what they set exists, what belongs together agrees. That
// they run is in deploy_run_test.go.

// graceMargin is what a deployment leaves a node between its own last resort and the kill.
const graceMargin = 5 * time.Second

// settingsOf reads the settings as `autoglm ARGS` would. Unknown flags, variables and keys fail the test.
func settingsOf(t *testing.T, args []string, env map[string]string) node.Config {
	t.Helper()
	require.Equal(t, "serve", args[0])
	cmd := newServe(&cli.App{Out: io.Discard, Err: io.Discard})
	require.NoError(t, cmd.ParseFlags(args[1:]))
	require.Empty(t, cmd.Flags().Args())
	flags, err := serveFlags(cmd.Flags(), nil)
	require.NoError(t, err)
	config, err := cmd.Flags().GetString("config")
	require.NoError(t, err)
	if config != "" {
		config = deployPath("systemd", path.Base(config))
	}
	environ := []string{}
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	cfg, unknown, err := node.Load(config, environ, flags)
	require.NoError(t, err)
	unknown = slices.DeleteFunc(unknown, func(n string) bool { return n == cli.ServerEnv || n == cli.TrustEnv }) // of the commands
	require.Empty(t, unknown, "no setting")
	return cfg
}

// checkNode holds what is true of a node of three anywhere.
func checkNode(t *testing.T, cfg node.Config, data, identity string, grace time.Duration) {
	t.Helper()
	require.Equal(t, 3, cfg.Cluster.Expect)
	require.Equal(t, 3, cfg.Cluster.Replicas)
	require.NotEmpty(t, cfg.Cluster.Advertise)
	require.Equal(t, identity, cfg.Cluster.Identity)
	require.True(t, strings.HasPrefix(cfg.DataDir, data+"/"), "%s is kept, in a folder of its own: a volume may have lost+found", cfg.DataDir)
	require.GreaterOrEqual(t, grace, cfg.Drain+stopMargin+graceMargin, "a node may stop by itself")
	_, port, err := net.SplitHostPort(cfg.Cluster.Listen)
	require.NoError(t, err)
	for _, seed := range cfg.Cluster.Join {
		_, p, err := net.SplitHostPort(seed)
		require.NoError(t, err)
		require.Equal(t, port, p)
	}
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	n, err := strconv.Atoi(p)
	require.NoError(t, err)
	return n
}

func TestDeploySystemd(t *testing.T) {
	u := readUnit(t)
	one := func(key string) string {
		t.Helper()
		require.Len(t, u[key], 1, key)
		return u[key][0]
	}
	args := strings.Fields(one("Service.ExecStart"))
	require.Equal(t, "/usr/local/bin/autoglm", args[0])
	grace, err := time.ParseDuration(one("Service.TimeoutStopSec"))
	require.NoError(t, err)
	cfg := settingsOf(t, args[1:], readEnvFile(t))
	checkNode(t, cfg, "/var/lib/"+one("Service.StateDirectory"), "/etc/autoglm/identity", grace)
	require.Contains(t, cfg.Cluster.Join, net.JoinHostPort(cfg.Cluster.Advertise, strconv.Itoa(portOf(t, cfg.Cluster.Listen))))
	require.Len(t, cfg.Cluster.Join, 3)
	require.Equal(t, node.KeysAuto, cfg.Access.Keys)
	require.False(t, cfg.HTTP.AllowPlaintext)
	require.Equal(t, []string{"/etc/autoglm/autoglm.env"}, u["Service.EnvironmentFile"])

	require.Equal(t, "on-failure", one("Service.Restart"))
	require.Equal(t, "mixed", one("Service.KillMode"), "a worker must not get SIGTERM while its node drains")
	require.Equal(t, "SIGTERM", one("Service.KillSignal"))
	require.Equal(t, "continue", one("Service.OOMPolicy"))
	require.Equal(t, "strict", one("Service.ProtectSystem"))
	require.Contains(t, one("Service.RestrictAddressFamilies"), "AF_NETLINK")
	require.Contains(t, string(readDeploy(t, "systemd", "autoglm.sysusers.conf")), "\nu "+one("Service.User")+" ")
}

// systemd itself reads the unit, where it is installed.
func TestDeploySystemdVerifies(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze here")
	}
	file := filepath.Join(t.TempDir(), "autoglm.service")
	b := strings.Replace(string(readDeploy(t, "systemd", "autoglm.service")), "ExecStart=/usr/local/bin/autoglm", "ExecStart=/bin/true", 1)
	require.NoError(t, os.WriteFile(file, []byte(b), 0o600))
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out), "unknown keys are warnings")
	out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=yes", "--threshold=20", file).CombinedOutput()
	require.NoError(t, err, "more than 2.0 of 10 is exposed:\n%s", out)
}

func TestDeployCompose(t *testing.T) {
	f := readCompose(t)
	nodes := slices.Sorted(maps.Keys(f.Services))
	nodes = slices.DeleteFunc(nodes, func(n string) bool { return n == "init" || n == "cli" })
	require.Equal(t, []string{"a", "b", "c"}, nodes)
	published := map[string]bool{}
	for _, name := range nodes {
		s := f.Services[name]
		grace, err := time.ParseDuration(s.StopGracePeriod)
		require.NoError(t, err)
		cfg := settingsOf(t, s.Command, s.Environment)
		checkNode(t, cfg, "/var/lib/autoglm", "/etc/autoglm/identity", grace)
		require.Equal(t, name, s.Hostname)
		require.Equal(t, name, cfg.Cluster.Advertise)
		require.Equal(t, []string{"a:7946", "b:7946", "c:7946"}, cfg.Cluster.Join)

		require.Len(t, s.Ports, 1, "the API alone leaves the network")
		host, inner, ok := strings.Cut(strings.TrimPrefix(s.Ports[0], "127.0.0.1:"), ":")
		require.True(t, ok && strings.HasPrefix(s.Ports[0], "127.0.0.1:"), "%s: only this machine may reach it", s.Ports[0])
		require.Equal(t, strconv.Itoa(portOf(t, cfg.HTTP.Listen)), inner)
		require.False(t, published[host])
		published[host] = true

		require.Equal(t, []string{"cluster"}, s.Networks)
		require.Contains(t, f.Networks, "cluster")
		require.True(t, s.ReadOnly)
		require.Equal(t, []string{"/tmp"}, s.Tmpfs, "the workers' sockets")
		require.Equal(t, []string{"ALL"}, s.CapDrop)
		require.Equal(t, []string{"no-new-privileges:true"}, s.SecurityOpt)
		require.Equal(t, "CMD", s.Healthcheck.Test[0])
		checkCommand(t, s.Healthcheck.Test[2:])

		require.Len(t, s.Volumes, 2)
		require.Equal(t, "data-"+name, s.Volumes[0].Source)
		require.Equal(t, "/var/lib/autoglm", s.Volumes[0].Target)
		require.False(t, s.Volumes[0].ReadOnly)
		require.Equal(t, "/etc/autoglm/identity", s.Volumes[1].Target)
		require.True(t, s.Volumes[1].ReadOnly)
		for _, v := range s.Volumes {
			require.Contains(t, f.Volumes, v.Source)
		}
		// what init makes is what the nodes mount
		init := f.Services["init"]
		require.Equal(t, s.Image, init.Image)
		require.Equal(t, s.Volumes[1].Source, init.Volumes[0].Source)
		at := slices.Index(init.Command, "--dir")
		inVolume, err := filepath.Rel(init.Volumes[0].Target, init.Command[at+1])
		require.NoError(t, err)
		require.Equal(t, filepath.Join(inVolume, "nodes", name), s.Volumes[1].Volume.SubPath)
	}
	init := f.Services["init"]
	checkCommand(t, init.Command)
	require.Equal(t, "a,b,c", init.Command[slices.Index(init.Command, "--nodes")+1])
	require.Equal(t, []string{"init"}, init.Profiles, "not with every start")
	op := f.Services["cli"]
	require.Equal(t, init.Image, op.Image)
	require.Equal(t, []string{"cli"}, op.Profiles)
	checkCommand(t, op.Command)
	at := init.Command[slices.Index(init.Command, "--dir")+1]
	require.Equal(t, init.Volumes[0].Target, op.Volumes[0].Target)
	require.Equal(t, init.Volumes[0].Source, op.Volumes[0].Source)
	require.Equal(t, pki.AdminKeyFile(at), op.Environment[cli.KeyFileEnv])
	require.Equal(t, filepath.Join(at, "ca.crt"), op.Environment[cli.TrustEnv])
	build := f.Services["a"].Build
	require.Equal(t, filepath.Clean(deployPath("Dockerfile")), filepath.Join(deployPath("compose"), build.Context, build.Dockerfile))
}

// checkCommand parses the words after `autoglm`, and runs nothing.
func checkCommand(t *testing.T, words []string) {
	t.Helper()
	root := newRoot(&cli.App{Out: io.Discard, Err: io.Discard})
	cmd, rest, err := root.Find(words)
	require.NoError(t, err, "autoglm %q", words)
	require.NotEqual(t, root, cmd, "autoglm %q is no command", words)
	require.NoError(t, cmd.ParseFlags(rest), "autoglm %q", words)
	require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), "autoglm %q", words)
}

func TestDeployDockerfile(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)[1]
	makefiles, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)
	worker, err := os.ReadFile("../glm-worker/build.mk")
	require.NoError(t, err)
	got := map[string][]string{}
	for _, in := range dockerfile(t) {
		got[in[0]] = append(got[in[0]], in[1])
	}
	require.Equal(t, []string{fmt.Sprintf("golang:%s-bookworm AS build", version), "gcr.io/distroless/base-debian12:nonroot"}, got["FROM"],
		"bookworm is Debian 12: one glibc")
	targets := strings.Fields(regexp.MustCompile(`make ([^"&]*) VERSION`).FindStringSubmatch(strings.Join(got["RUN"], "\n"))[1])
	for _, target := range targets {
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(target)+`:`, string(makefiles)+"\n"+string(worker))
	}
	binaries := strings.Fields(got["COPY"][2])
	for _, b := range binaries[1 : len(binaries)-1] {
		require.Regexp(t, `(?m)^(\S+ )*`+regexp.QuoteMeta(strings.TrimPrefix(b, "/src/"))+`( \S+)*:`, string(makefiles)+"\n"+string(worker), "what is copied is built")
	}
	require.Equal(t, []string{`["/usr/local/bin/autoglm"]`}, got["ENTRYPOINT"])
	k := readKubernetes(t)
	pod := k.set.Spec.Template.Spec
	require.Equal(t, []string{fmt.Sprintf("%d:%d", pod.SecurityContext.RunAsUser, pod.SecurityContext.RunAsGroup)}, got["USER"])
	compose := readCompose(t)
	require.Equal(t, "/usr/local/bin/autoglm", compose.Services["a"].Healthcheck.Test[1])
	for _, p := range pod.Containers[0].Ports {
		require.Contains(t, got["EXPOSE"][0], strconv.Itoa(p.ContainerPort))
	}
	ignored := string(readDeploy(t, "Dockerfile.dockerignore"))
	require.Contains(t, ignored, ".git\n")
	require.Contains(t, ignored, "autoglm-pki\n", "keys do not belong into an image")
}

var (
	fenced   = regexp.MustCompile("(?s)```\n(.*?)```")
	inline   = regexp.MustCompile("`([^`\n]+)`")
	called   = regexp.MustCompile(`(?:^|[ (])autoglm ([a-z][^|&;#>]*)`)
	linked   = regexp.MustCompile(`\]\(([^)]+)\)`)
	readmes  = []string{"README.md", "systemd/README.md", "kubernetes/README.md", "compose/README.md"}
	settings = regexp.MustCompile("`((?:http|cluster|model|disk|memory)[a-z_.]*[._][a-z_]+)`")
)

// What the READMEs tell to type exists: commands, flags, settings and files.
func TestDeployReadmes(t *testing.T) {
	known := map[string]bool{}
	for _, s := range node.Settings() {
		known[s.Key] = true
	}
	for _, name := range readmes {
		text := string(readDeploy(t, name))
		var code []string
		for _, m := range fenced.FindAllStringSubmatch(text, -1) {
			code = append(code, strings.Split(m[1], "\n")...)
		}
		for _, m := range inline.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			code = append(code, m[1])
		}
		commands := 0
		for _, line := range code {
			if strings.Contains(line, "install ") || strings.Contains(line, "systemctl") || strings.Contains(line, "journalctl") {
				continue // autoglm is a file or a unit there
			}
			for _, m := range called.FindAllStringSubmatch(line, -1) {
				commands++
				words := slices.DeleteFunc(strings.Fields(m[1]), func(w string) bool { return w == "…" })
				checkDocumented(t, name, words)
			}
		}
		require.Positive(t, commands, name)
		for _, m := range linked.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			target := deployPath(path.Join(path.Dir(name), file))
			b, err := os.ReadFile(target)
			if st, e := os.Stat(target); e == nil && st.IsDir() {
				continue
			}
			require.NoError(t, err, "%s links to %s", name, m[1])
			if anchor != "" {
				require.Contains(t, anchors(string(b)), anchor, "%s links to %s", name, m[1])
			}
		}
		for _, m := range settings.FindAllStringSubmatch(text, -1) {
			require.True(t, known[m[1]], "%s tells of the setting %s", name, m[1])
		}
	}
}

// checkDocumented is checkCommand for a line of prose, which may leave an argument out.
func checkDocumented(t *testing.T, where string, words []string) {
	t.Helper()
	root := newRoot(&cli.App{Out: io.Discard, Err: io.Discard})
	cmd, rest, err := root.Find(words)
	require.NoError(t, err, "%s: autoglm %q", where, words)
	require.NotEqual(t, root, cmd, "%s: autoglm %q is no command", where, words)
	require.False(t, cmd.HasSubCommands() && len(rest) > 0 && rest[0][0] != '-', "%s: autoglm %q is no command", where, words)
	if err := cmd.ParseFlags(rest); err != nil {
		require.Contains(t, err.Error(), "flag needs an argument", "%s: autoglm %q", where, words)
	}
}

// anchors are the names of a page's headings, as GitHub makes them.
func anchors(page string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		a := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(a, " ", "-"))
	}
	return all
}
