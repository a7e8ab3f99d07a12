package node

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// invalidConfig says what is wrong with a field, its value, and the remedy.
func invalidConfig(field string, value any, format string, args ...any) error {
	return fault.New(fault.Invalid, "config", field, "is %v", value).WithRemedy(format, args...)
}

// Validate checks every bound that needs no other part of the system. The first field that
// is wrong gives an Invalid fault with its name, its value and what to do.
func (c *Config) Validate() error {
	for _, check := range []func() error{c.checkNode, c.checkHTTP, c.checkAccess, c.checkCluster, c.checkEngines, c.checkModel, c.checkTask, c.checkSource, c.checkCallback, c.checkFiles, c.checkBulk, c.checkEncryption, c.checkSink} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkNode() error {
	switch {
	case c.DataDir == "":
		return invalidConfig("data_dir", `""`, "name a folder with --data-dir")
	case len(c.NodeID) > 64 || strings.ContainsFunc(c.NodeID, func(r rune) bool { return r <= ' ' || r > '~' }):
		return invalidConfig("node_id", fmt.Sprintf("%q", c.NodeID), "use at most 64 printable ASCII characters without spaces")
	case c.Shards < 0 || c.Shards > 1024:
		return invalidConfig("shards", c.Shards, "use 1 to 1024, or 0 for what the data directory has")
	case c.DiskReserve < 64<<20:
		return invalidConfig("disk_reserve", c.DiskReserve, "keep at least 64MiB free: the store cannot survive a full disk")
	case c.Drain < 0:
		return invalidConfig("drain", c.Drain, "use 0s or more")
	case !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level):
		return invalidConfig("log.level", fmt.Sprintf("%q", c.Log.Level), "use debug, info, warn or error")
	case !slices.Contains([]string{"text", "json"}, c.Log.Format):
		return invalidConfig("log.format", fmt.Sprintf("%q", c.Log.Format), "use text or json")
	}
	return nil
}

func (c *Config) checkHTTP() error {
	host, port, err := net.SplitHostPort(c.HTTP.Listen)
	if err != nil {
		return invalidConfig("http.listen", fmt.Sprintf("%q", c.HTTP.Listen), "write host:port, like 127.0.0.1:8080")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return invalidConfig("http.listen", fmt.Sprintf("%q", c.HTTP.Listen), "use a port from 0 to 65535")
	}
	if (c.HTTP.TLSCert == "") != (c.HTTP.TLSKey == "") {
		return invalidConfig("http.tls_cert", fmt.Sprintf("%q, tls_key %q", c.HTTP.TLSCert, c.HTTP.TLSKey), "name both, or neither")
	}
	if !loopbackHost(host) && c.HTTP.TLSCert == "" && c.Cluster.Identity == "" && !c.HTTP.AllowPlaintext {
		return invalidConfig("http.listen", c.HTTP.Listen, "other machines reach it, and keys and prompts would go over the network in clear: "+
			"give it a certificate with http.tls_cert and http.tls_key, or set http.allow_plaintext where a proxy in front ends TLS, or listen on 127.0.0.1")
	}
	if err := c.HTTP.Limits.Validate(); err != nil {
		return fault.New(fault.Invalid, "config", "http", "%w", err)
	}
	return nil
}

const expectMax = 100 // nodes; a cluster may grow beyond, it does not start with more

func (c *Config) checkCluster() error {
	k := c.Cluster
	switch {
	case k.Replicas != 1 && k.Replicas != 3 && k.Replicas != 5:
		return invalidConfig("cluster.replicas", k.Replicas, "use 1, 3 or 5: an even number survives no more than the odd one below it")
	case k.DeadAfter < time.Second:
		return invalidConfig("cluster.dead_after", k.DeadAfter, "use 1s or more")
	case len(k.Zone) > 64:
		return invalidConfig("cluster.zone", fmt.Sprintf("%q", k.Zone), "use at most 64 bytes")
	}
	if k.Identity == "" {
		if len(k.Join) > 0 || k.Expect > 0 {
			return invalidConfig("cluster.identity", "empty, and a cluster is to be joined",
				"nodes talk to each other under certificates only: make them with autoglm init, copy this node's folder here and name it with --identity")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(k.Listen)
	if err != nil {
		return invalidConfig("cluster.listen", fmt.Sprintf("%q", k.Listen), "write host:port, like 0.0.0.0:7946")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65533 {
		return invalidConfig("cluster.listen", fmt.Sprintf("%q", k.Listen), "use a port up to 65533: the two after it are taken as well")
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil || strings.ContainsAny(k.Advertise, ":/ ") && !isIPv6(k.Advertise) {
		return invalidConfig("cluster.listen", fmt.Sprintf("%q, advertise %q", k.Listen, k.Advertise), "listen on an IP address; advertise a host name or an IP address, without a port")
	}
	for i, a := range k.Join {
		if h, p, err := net.SplitHostPort(a); err != nil || h == "" || p == "" {
			return invalidConfig(fmt.Sprintf("cluster.join[%d]", i), fmt.Sprintf("%q", a), "write host:port, like 10.0.0.7:7946")
		}
	}
	switch {
	case k.Expect < 0 || k.Expect > expectMax:
		return invalidConfig("cluster.expect", k.Expect, "use 0 to %d", expectMax)
	case k.Expect > 1 && len(k.Join) == 0:
		return invalidConfig("cluster.expect", fmt.Sprintf("%d, and no other node is named", k.Expect), "name some with --join")
	}
	return nil
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

func (c *Config) checkEngines() error {
	if len(c.Engines) == 0 {
		return invalidConfig("engines", "empty", "name one with --engine: embedded, echo or a URL")
	}
	seen := map[string]bool{}
	for i, e := range c.Engines {
		field := fmt.Sprintf("engines[%d]", i)
		if e.URL == EngineNone {
			if c.Cluster.Identity == "" || len(c.Engines) > 1 {
				return invalidConfig(field+".url", "none", "only a node of a cluster may have no engine, and then none other")
			}
			continue
		}
		if e.URL != EngineEmbedded && e.URL != EngineEcho {
			u, err := url.Parse(e.URL)
			if err != nil || !(u.Scheme == "http" || u.Scheme == "https") || u.Host == "" {
				if err != nil || u.Scheme != "unix" || u.Path == "" {
					return invalidConfig(field+".url", fmt.Sprintf("%q", e.URL), "use embedded, echo, http(s)://host[:port][/v1] or unix:///path")
				}
			}
			if u.User != nil {
				return invalidConfig(field+".url", u.Redacted(), "put the key into an environment variable and name that in api_key_env")
			}
		}
		name := e.Name
		if name == "" {
			name = e.URL
		}
		switch {
		case seen[name]:
			return invalidConfig(field+".name", fmt.Sprintf("%q again", name), "give each engine its own name")
		case e.Concurrency < 0 || e.Concurrency > 4096:
			return invalidConfig(field+".concurrency", e.Concurrency, "use 1 to 4096, or 0 for the default")
		case e.Prefetch < 0 || e.Prefetch > 4096:
			return invalidConfig(field+".prefetch", e.Prefetch, "use 1 to 4096, or 0 for the default")
		case slices.ContainsFunc(e.Endpoints, func(x string) bool { return !slices.Contains(task.Endpoints(), x) }):
			return invalidConfig(field+".endpoints", strings.Join(e.Endpoints, ", "), "use some of %s", strings.Join(task.Endpoints(), ", "))
		case e.Timeout < 0:
			return invalidConfig(field+".timeout", e.Timeout, "use 0s or more")
		case e.APIKeyEnv != "" && os.Getenv(e.APIKeyEnv) == "":
			return invalidConfig(field+".api_key_env", e.APIKeyEnv+", which is not set", "export %s=…", e.APIKeyEnv)
		}
		seen[name] = true
	}
	return nil
}

func (c *Config) checkModel() error {
	m := c.Model
	if m.Path != "" && c.embedded() {
		if st, err := os.Stat(m.Path); err != nil || st.IsDir() {
			return invalidConfig("model.path", m.Path+", which is no file that can be read", "name a GGUF file, or leave it out for the shipped model")
		}
	}
	switch {
	case m.Workers < 1 || m.Workers > 64:
		return invalidConfig("model.workers", m.Workers, "use 1 to 64")
	case m.Slots < 1 || m.Slots > 256:
		return invalidConfig("model.slots", m.Slots, "use 1 to 256")
	case m.Ctx < 0 || m.Ctx == 1:
		return invalidConfig("model.ctx", m.Ctx, "use at least 2, or 0 for the model's own")
	case m.Threads < 1 || m.Threads > 1024:
		return invalidConfig("model.threads", m.Threads, "use 1 to 1024")
	}
	for field, d := range map[string]time.Duration{"model.load_timeout": m.LoadTimeout, "model.hang_after": m.HangAfter,
		"model.stop_timeout": m.StopTimeout, "model.restart_delay": m.RestartDelay, "model.restart_max": m.RestartMax} {
		if d <= 0 {
			return invalidConfig(field, d, "use more than 0s")
		}
	}
	return nil
}

func (c *Config) embedded() bool {
	return slices.ContainsFunc(c.Engines, func(e EngineConfig) bool { return e.URL == EngineEmbedded })
}

func (c *Config) checkTask() error {
	b, t, s := c.Batch, c.Task, c.Store
	switch {
	case b.SizeMax < 1 || b.SizeMax > 4096:
		return invalidConfig("batch.size_max", b.SizeMax, "use 1 to 4096")
	case b.TokensMax < 1:
		return invalidConfig("batch.tokens_max", b.TokensMax, "use 1 or more")
	case b.AgeMax < 0:
		return invalidConfig("batch.age_max", b.AgeMax, "use 0s or more")
	case t.Timeout <= 0 || t.Timeout > t.TimeoutMax:
		return invalidConfig("task.timeout", t.Timeout, "use more than 0s and at most task.timeout_max, which is %v", t.TimeoutMax)
	case t.LeaseMargin < time.Second:
		return invalidConfig("task.lease_margin", t.LeaseMargin, "use 1s or more: an answer must be durable before its lease ends")
	case t.Attempts < 1 || t.Attempts > 100:
		return invalidConfig("task.attempts", t.Attempts, "use 1 to 100")
	case t.BackoffMin <= 0 || t.BackoffMin > t.BackoffMax:
		return invalidConfig("task.backoff_min", t.BackoffMin, "use more than 0s and at most task.backoff_max, which is %v", t.BackoffMax)
	case t.RetryShare < 0 || t.RetryShare > 100:
		return invalidConfig("task.retry_percent", t.RetryShare, "use 1 to 100, or 0 for no end")
	case t.RetryFloor < 1:
		return invalidConfig("task.retry_floor", t.RetryFloor, "use 1 or more")
	case t.RetryWindow < time.Second || t.RetryWindow > time.Hour:
		return invalidConfig("task.retry_window", t.RetryWindow, "use 1s to 1h")
	case t.SlowFactor < 1:
		return invalidConfig("task.slow_factor", t.SlowFactor, "use 1 or more")
	case t.MovesMax < 1:
		return invalidConfig("task.moves_max", t.MovesMax, "use 1 or more")
	case t.AsleepAfter <= 0:
		return invalidConfig("task.asleep_after", t.AsleepAfter, "use more than 0s")
	case s.InFlightCount < 1:
		return invalidConfig("store.in_flight_count", s.InFlightCount, "use 1 or more")
	case s.InFlightBytes < 8<<20:
		return invalidConfig("store.in_flight_bytes", s.InFlightBytes, "use 8MiB or more")
	case s.MemTable < 16<<20:
		return invalidConfig("store.memtable", s.MemTable, "use 16MiB or more")
	case s.OpenTimeout <= 0:
		return invalidConfig("store.open_timeout", s.OpenTimeout, "use more than 0s")
	}
	return nil
}

func (c *Config) checkSource() error {
	s := c.Source
	for i, d := range s.AllowedDirs {
		if !filepath.IsAbs(d) {
			return invalidConfig(fmt.Sprintf("source.allowed_dirs[%d]", i), fmt.Sprintf("%q", d), "use an absolute path")
		}
	}
	switch {
	case s.SizeMax < 1 || s.SizeMax > 1<<30:
		return invalidConfig("source.size_max", s.SizeMax, "use 1 byte to 1GiB")
	case s.Timeout <= 0:
		return invalidConfig("source.timeout", s.Timeout, "use more than 0s")
	case s.RedirectsMax < 0 || s.RedirectsMax > 20:
		return invalidConfig("source.redirects_max", s.RedirectsMax, "use 0 to 20")
	}
	_, err := prefixes("source.allowed_nets", s.AllowedNets)
	return err
}

func (c *Config) checkCallback() error {
	cb := c.Callback
	if cb.Secret != "" {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(cb.Secret.Reveal(), "whsec_"))
		switch {
		case cb.SecretFile != "":
			return invalidConfig("callback.secret_file", cb.SecretFile, "give callback.secret or callback.secret_file, not both")
		case err != nil || len(key) < 24 || len(key) > 64:
			return invalidConfig("callback.secret", "no secret as Standard Webhooks has it", "use whsec_ and the base64 of 24 to 64 random bytes")
		}
	}
	switch {
	case cb.Attempts < 1 || cb.Attempts > 10:
		return invalidConfig("callback.attempts", cb.Attempts, "use 1 to 10")
	case cb.Timeout <= 0:
		return invalidConfig("callback.timeout", cb.Timeout, "use more than 0s")
	case cb.InFlight < 1 || cb.InFlight > 4096:
		return invalidConfig("callback.in_flight", cb.InFlight, "use 1 to 4096")
	}
	_, err := prefixes("callback.allowed_nets", cb.AllowedNets)
	return err
}

func (c *Config) checkEncryption() error {
	e := c.Encryption
	switch {
	case e.KeyFile != "" && e.Key != "":
		return invalidConfig("encryption.key_file", fmt.Sprintf("%q", e.KeyFile), "give encryption.key or encryption.key_file, not both")
	case e.Standby && e.KeyFile == "" && e.Key == "":
		return invalidConfig("encryption.standby", e.Standby, "it needs encryption.key_file")
	}
	return nil
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
