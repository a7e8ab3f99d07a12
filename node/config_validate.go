package node

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// invalidConfig says what is wrong with a field, its value, and the remedy.
func invalidConfig(field string, value any, format string, args ...any) error {
	return fault.New(fault.Invalid, "config", field, "is %v", value).WithRemedy(format, args...)
}

// wrong collects what is wrong with settings: who mends one wants to hear of all.
type wrong []error

func (w *wrong) add(err error) {
	if err != nil {
		*w = append(*w, err)
	}
}

// when adds what invalidConfig says, where it is so.
func (w *wrong) when(so bool, field string, value any, format string, args ...any) {
	if so {
		w.add(invalidConfig(field, value, format, args...))
	}
}

// Validate checks every bound that needs no other part of the system. Each field that is wrong gives an Invalid fault with its name,
// its value and what to do, a line each.
func (c *Config) Validate() error {
	var w wrong
	for _, check := range []func(*wrong){c.checkNode, c.checkHTTP, func(w *wrong) { w.add(c.checkAccess()) }, c.checkCluster, c.checkEngines, c.checkModel, c.checkTask, c.checkSource, c.checkTools,
		c.checkCallback, c.checkFiles, c.checkBulk, c.checkEncryption, c.checkSink, c.checkRetention} {
		check(&w)
	}
	return errors.Join(w...)
}

func (c *Config) checkNode(w *wrong) {
	w.when(c.DataDir == "", "data_dir", `""`, "name a folder with --data-dir")
	w.when(len(c.NodeID) > 64 || strings.ContainsFunc(c.NodeID, func(r rune) bool { return r <= ' ' || r > '~' }), "node_id", fmt.Sprintf("%q", c.NodeID), "use at most 64 printable ASCII characters without spaces")
	w.when(c.Shards < 0 || c.Shards > 1024, "shards", c.Shards, "use 1 to 1024, or 0 for what the data directory has")
	w.when(c.DiskReserve < 64<<20, "disk_reserve", c.DiskReserve, "keep at least 64MiB free: the store cannot survive a full disk")
	w.when(c.Drain < 0, "drain", c.Drain, "use 0s or more")
	w.when(!slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level", fmt.Sprintf("%q", c.Log.Level), "use debug, info, warn or error")
	w.when(!slices.Contains([]string{"text", "json"}, c.Log.Format), "log.format", fmt.Sprintf("%q", c.Log.Format), "use text or json")
}

func (c *Config) checkHTTP(w *wrong) {
	host, port, err := net.SplitHostPort(c.HTTP.Listen)
	if err != nil {
		w.add(invalidConfig("http.listen", fmt.Sprintf("%q", c.HTTP.Listen), "write host:port, like 127.0.0.1:8080"))
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		w.add(invalidConfig("http.listen", fmt.Sprintf("%q", c.HTTP.Listen), "use a port from 0 to 65535"))
		return
	}
	if (c.HTTP.TLSCert == "") != (c.HTTP.TLSKey == "") {
		w.add(invalidConfig("http.tls_cert", fmt.Sprintf("%q, tls_key %q", c.HTTP.TLSCert, c.HTTP.TLSKey), "name both, or neither"))
	}
	if !loopbackHost(host) && c.HTTP.TLSCert == "" && c.Cluster.Identity == "" && !c.HTTP.AllowPlaintext {
		w.add(invalidConfig("http.listen", c.HTTP.Listen, "other machines reach it, and keys and prompts would go over the network in clear: "+
			"give it a certificate with http.tls_cert and http.tls_key, or set http.allow_plaintext where a proxy in front ends TLS, or listen on 127.0.0.1"))
	}
	w.add(c.HTTP.Limits.Validate())
}

const expectMax = 100 // nodes; a cluster may grow beyond, it does not start with more

func (c *Config) checkCluster(w *wrong) {
	k := c.Cluster
	w.when(k.Replicas != 1 && k.Replicas != 3 && k.Replicas != 5, "cluster.replicas", k.Replicas, "use 1, 3 or 5: an even number survives no more than the odd one below it")
	w.when(k.DeadAfter < time.Second, "cluster.dead_after", k.DeadAfter, "use 1s or more")
	w.when(len(k.Zone) > 64, "cluster.zone", fmt.Sprintf("%q", k.Zone), "use at most 64 bytes")
	if k.Identity == "" {
		if len(k.Join) > 0 || k.Expect > 0 {
			w.add(invalidConfig("cluster.identity", "empty, and a cluster is to be joined",
				"nodes talk to each other under certificates only: make them with autoglm init, copy this node's folder here and name it with --identity"))
		}
		return
	}
	host, port, err := net.SplitHostPort(k.Listen)
	if err != nil {
		w.add(invalidConfig("cluster.listen", fmt.Sprintf("%q", k.Listen), "write host:port, like 0.0.0.0:7946"))
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65533 {
		w.add(invalidConfig("cluster.listen", fmt.Sprintf("%q", k.Listen), "use a port up to 65533: the two after it are taken as well"))
		return
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil || strings.ContainsAny(k.Advertise, ":/ ") && !isIPv6(k.Advertise) {
		w.add(invalidConfig("cluster.listen", fmt.Sprintf("%q, advertise %q", k.Listen, k.Advertise), "listen on an IP address; advertise a host name or an IP address, without a port"))
	}
	for i, a := range k.Join {
		if h, p, err := net.SplitHostPort(a); err != nil || h == "" || p == "" {
			w.add(invalidConfig(fmt.Sprintf("cluster.join[%d]", i), fmt.Sprintf("%q", a), "write host:port, like 10.0.0.7:7946"))
		}
	}
	w.when(k.Expect < 0 || k.Expect > expectMax, "cluster.expect", k.Expect, "use 0 to %d", expectMax)
	w.when(k.Expect > 1 && len(k.Join) == 0, "cluster.expect", fmt.Sprintf("%d, and no other node is named", k.Expect), "name some with --join")
}

func isIPv6(s string) bool {
	ip, err := netip.ParseAddr(s)
	return err == nil && ip.Is6()
}

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (c *Config) checkModel(w *wrong) {
	m := c.Model
	if m.Path != "" && c.embedded() {
		if st, err := os.Stat(m.Path); err != nil || st.IsDir() {
			w.add(invalidConfig("model.path", m.Path+", which is no file that can be read", "name a GGUF file, or leave it out for the shipped model"))
		}
	}
	w.when(m.Workers < 1 || m.Workers > 64, "model.workers", m.Workers, "use 1 to 64")
	w.when(m.Slots < 1 || m.Slots > 256, "model.slots", m.Slots, "use 1 to 256")
	w.when(m.Ctx < 0 || m.Ctx == 1, "model.ctx", m.Ctx, "use at least 2, or 0 for the model's own")
	w.when(m.Threads < 1 || m.Threads > 1024, "model.threads", m.Threads, "use 1 to 1024")
	for i, name := range m.Allowed {
		w.when(name != anyCommand && infer.Preset(name) == nil, fmt.Sprintf("model.allowed_commands[%d]", i), name, "use %s or %s", strings.Join(infer.Presets(), ", "), anyCommand)
	}
	for field, d := range map[string]time.Duration{"model.load_timeout": m.LoadTimeout, "model.hang_after": m.HangAfter,
		"model.stop_timeout": m.StopTimeout, "model.restart_delay": m.RestartDelay, "model.restart_max": m.RestartMax} {
		if d <= 0 {
			w.add(invalidConfig(field, d, "use more than 0s"))
		}
	}
}

func (c *Config) embedded() bool {
	return slices.ContainsFunc(c.Engines, func(e EngineConfig) bool { return e.URL == EngineEmbedded })
}

func (c *Config) checkTask(w *wrong) {
	b, t, s := c.Batch, c.Task, c.Store
	_, err := c.Scheduling.policy()
	w.add(err)
	_, err = c.Scheduling.hedging()
	w.add(err)
	w.when(b.SizeMax < 1 || b.SizeMax > 4096, "batch.size_max", b.SizeMax, "use 1 to 4096")
	w.when(b.TokensMax < 1, "batch.tokens_max", b.TokensMax, "use 1 or more")
	w.when(b.AgeMax < 0, "batch.age_max", b.AgeMax, "use 0s or more")
	w.when(t.Timeout <= 0 || t.Timeout > t.TimeoutMax, "task.timeout", t.Timeout, "use more than 0s and at most task.timeout_max, which is %v", t.TimeoutMax)
	w.when(t.LeaseMargin < time.Second, "task.lease_margin", t.LeaseMargin, "use 1s or more: an answer must be durable before its lease ends")
	w.when(t.Attempts < 1 || t.Attempts > 100, "task.attempts", t.Attempts, "use 1 to 100")
	w.when(t.BackoffMin <= 0 || t.BackoffMin > t.BackoffMax, "task.backoff_min", t.BackoffMin, "use more than 0s and at most task.backoff_max, which is %v", t.BackoffMax)
	w.when(t.RetryShare < 0 || t.RetryShare > 100, "task.retry_percent", t.RetryShare, "use 1 to 100, or 0 for no end")
	w.when(t.RetryFloor < 1, "task.retry_floor", t.RetryFloor, "use 1 or more")
	w.when(t.RetryWindow < time.Second || t.RetryWindow > time.Hour, "task.retry_window", t.RetryWindow, "use 1s to 1h")
	w.when(t.SlowFactor < 1, "task.slow_factor", t.SlowFactor, "use 1 or more")
	w.when(t.MovesMax < 1, "task.moves_max", t.MovesMax, "use 1 or more")
	w.when(t.AsleepAfter <= 0, "task.asleep_after", t.AsleepAfter, "use more than 0s")
	w.when(s.InFlightCount < 1, "store.in_flight_count", s.InFlightCount, "use 1 or more")
	w.when(s.InFlightBytes < 8<<20, "store.in_flight_bytes", s.InFlightBytes, "use 8MiB or more")
	w.when(s.MemTable < 16<<20, "store.memtable", s.MemTable, "use 16MiB or more")
	w.when(s.OpenTimeout <= 0, "store.open_timeout", s.OpenTimeout, "use more than 0s")
}

func (c *Config) checkSource(w *wrong) {
	s := c.Source
	for i, d := range s.AllowedDirs {
		if !filepath.IsAbs(d) {
			w.add(invalidConfig(fmt.Sprintf("source.allowed_dirs[%d]", i), fmt.Sprintf("%q", d), "use an absolute path"))
		}
	}
	w.when(s.SizeMax < 1 || s.SizeMax > 1<<30, "source.size_max", s.SizeMax, "use 1 byte to 1GiB")
	w.when(s.Timeout <= 0, "source.timeout", s.Timeout, "use more than 0s")
	w.when(s.RedirectsMax < 0 || s.RedirectsMax > 20, "source.redirects_max", s.RedirectsMax, "use 0 to 20")
	_, err := prefixes("source.allowed_nets", s.AllowedNets)
	w.add(err)
}

func (c *Config) checkTools(w *wrong) {
	t := c.Tools
	w.when(t.HTTPConcurrency < 0 || t.HTTPConcurrency > 4096, "tools.http_concurrency", t.HTTPConcurrency, "use 1 to 4096, or 0 for none")
	w.when(t.WasmConcurrency < 0 || t.WasmConcurrency > 1024, "tools.wasm_concurrency", t.WasmConcurrency, "use 1 to 1024, or 0 for one for each processor")
	w.when(t.WasmDir != "" && !filepath.IsAbs(t.WasmDir), "tools.wasm_dir", fmt.Sprintf("%q", t.WasmDir), "use an absolute path")
	_, err := prefixes("tools.allowed_nets", t.AllowedNets)
	w.add(err)
}

func (c *Config) checkCallback(w *wrong) {
	cb := c.Callback
	if cb.Secret != "" {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(cb.Secret.Reveal(), "whsec_"))
		w.when(cb.SecretFile != "", "callback.secret_file", cb.SecretFile, "give callback.secret or callback.secret_file, not both")
		w.when(err != nil || len(key) < 24 || len(key) > 64, "callback.secret", "no secret as Standard Webhooks has it", "use whsec_ and the base64 of 24 to 64 random bytes")
	}
	w.when(cb.Attempts < 1 || cb.Attempts > 10, "callback.attempts", cb.Attempts, "use 1 to 10")
	w.when(cb.Timeout <= 0, "callback.timeout", cb.Timeout, "use more than 0s")
	w.when(cb.InFlight < 1 || cb.InFlight > 4096, "callback.in_flight", cb.InFlight, "use 1 to 4096")
	_, err := prefixes("callback.allowed_nets", cb.AllowedNets)
	w.add(err)
}

func (c *Config) checkEncryption(w *wrong) {
	e := c.Encryption
	w.when(e.KeyFile != "" && e.Key != "", "encryption.key_file", fmt.Sprintf("%q", e.KeyFile), "give encryption.key or encryption.key_file, not both")
	w.when(e.Standby && e.KeyFile == "" && e.Key == "", "encryption.standby", e.Standby, "it needs encryption.key_file")
}

// prefixes reads addresses and networks.
func prefixes(field string, nets []string) (ps []netip.Prefix, err error) {
	for i, n := range nets {
		if a, err := netip.ParseAddr(n); err == nil {
			ps = append(ps, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, invalidConfig(fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%q", n), "use an address like 10.1.2.3 or a network like 10.1.0.0/16")
		}
		ps = append(ps, p)
	}
	return ps, nil
}
