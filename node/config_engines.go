package node

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	concurrencyMax = 4096
	slotsMax       = 256
	aliasesMax     = 64
)

// gpuForm is what CUDA_VISIBLE_DEVICES may hold: numbers, or UUIDs of GPUs or of their parts (MIG).
var gpuForm = regexp.MustCompile(`^[A-Za-z0-9/._-]+(,[A-Za-z0-9/._-]+)*$`)

func (c *Config) checkEngines(w *wrong) {
	if len(c.Engines) == 0 {
		w.add(invalidConfig("engines", "empty", "name one with --engine: embedded, echo or a URL"))
		return
	}
	seen := map[string]bool{}
	for i, e := range c.Engines {
		field := fmt.Sprintf("engines[%d]", i)
		if e.URL == EngineNone {
			if c.Cluster.Identity == "" || len(c.Engines) > 1 {
				w.add(invalidConfig(field+".url", "none", "only a node of a cluster may have no engine, and then none other"))
			}
			continue
		}
		if !e.check(w, field+".") {
			continue
		}
		name := cmp.Or(e.Name, e.URL)
		if e.URL == EngineCommand {
			name = e.name()
		}
		w.when(seen[name], field+".name", fmt.Sprintf("%q again", name), "give each engine its own name")
		seen[name] = true
	}
}

// name is what the engine is called in the table of engines.
func (e *EngineConfig) name() string {
	switch {
	case e.Name != "":
		return e.Name
	case e.URL == EngineEmbedded || e.URL == EngineEcho || e.URL == EngineNone:
		return e.URL
	case e.URL == EngineCommand && len(e.Command) > 0:
		return filepath.Base(e.Command[0])
	case e.URL == EngineCommand:
		return cmp.Or(e.Preset, e.URL)
	}
	if u, err := url.Parse(e.URL); err == nil && u.Host != "" {
		return u.Host
	}
	return e.URL[strings.LastIndexByte(e.URL, '/')+1:]
}

// check looks at one engine, of the configuration or loaded later, and tells whether its URL is any good. prefix is put before its fields' names.
func (e *EngineConfig) check(w *wrong, prefix string) bool {
	embedded, command := e.URL == EngineEmbedded, e.URL == EngineCommand
	if !embedded && !command && e.URL != EngineEcho {
		u, err := url.Parse(e.URL)
		if err != nil || !(u.Scheme == "http" || u.Scheme == "https") || u.Host == "" {
			if err != nil || u.Scheme != "unix" || u.Path == "" {
				w.add(invalidConfig(prefix+"url", fmt.Sprintf("%q", e.URL), "use embedded, command, echo, http(s)://host[:port][/v1] or unix:///path"))
				return false
			}
		}
		if u.User != nil {
			w.add(invalidConfig(prefix+"url", u.Redacted(), "put the key into an environment variable and name that in api_key_env"))
			return false
		}
	}
	w.when(e.Concurrency < 0 || e.Concurrency > concurrencyMax, prefix+"concurrency", e.Concurrency, "use 1 to %d, or 0 for the default", concurrencyMax)
	w.when(e.Prefetch < 0 || e.Prefetch > concurrencyMax, prefix+"prefetch", e.Prefetch, "use 1 to %d, or 0 for the default", concurrencyMax)
	w.when(slices.ContainsFunc(e.Endpoints, func(x string) bool { return !slices.Contains(task.Endpoints(), x) }), prefix+"endpoints", strings.Join(e.Endpoints, ", "), "use some of %s", strings.Join(task.Endpoints(), ", "))
	w.when(e.Timeout < 0, prefix+"timeout", e.Timeout, "use 0s or more")
	w.when(e.APIKeyEnv != "" && os.Getenv(e.APIKeyEnv) == "", prefix+"api_key_env", e.APIKeyEnv+", which is not set", "export %s=…", e.APIKeyEnv)
	e.checkNames(w, prefix)
	for field, set := range map[string]bool{"path": e.Path != "", "gpu": e.GPU != "", "workers": e.Workers != 0, "slots": e.Slots != 0, "ctx": e.Ctx != 0, "limits": e.Limits != nil} {
		w.when(set && !embedded && !command, prefix+field, "set, and the engine is "+e.URL, "it is for url: embedded and url: command, whose processes this node starts; leave it out")
	}
	for field, set := range map[string]bool{"preset": e.Preset != "", "command": len(e.Command) > 0, "env": len(e.Env) > 0} {
		w.when(set && !command, prefix+field, "set, and the engine is "+e.URL, "it is for url: command; leave it out")
	}
	if !embedded && !command {
		return true
	}
	w.when(e.GPU != "" && !gpuForm.MatchString(e.GPU), prefix+"gpu", fmt.Sprintf("%q", e.GPU), "use what CUDA_VISIBLE_DEVICES takes: 0, or 0,1, or a GPU's UUID")
	workers, ctx := "model.workers", "model.ctx"
	if command {
		workers, ctx = "one", "the model's own"
	}
	w.when(e.Workers < 0 || e.Workers > infer.WorkersMax, prefix+"workers", e.Workers, "use 1 to %d, or 0 for %s", infer.WorkersMax, workers)
	w.when(e.Ctx < 0 || e.Ctx == 1, prefix+"ctx", e.Ctx, "use at least 2, or 0 for %s", ctx)
	if err := e.Limits.limits().Validate(); err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			w.add(invalidConfig(prefix+"limits."+f.Key, strings.TrimPrefix(f.Err.Error(), "is "), "%s", f.Remedy))
		}
	}
	if command {
		e.checkCommand(w, prefix)
		return true
	}
	if e.Path != "" {
		st, err := os.Stat(e.Path)
		w.when(err != nil || st.IsDir(), prefix+"path", e.Path+", which is no file that can be read", "name a GGUF file on this node's machine")
	}
	w.when(len(e.Models) > 1 || len(e.Models) > 0 && e.Path == "", prefix+"models", strings.Join(e.Models, ", "), "an embedded engine serves one model: name it here once, beside its path, or in model.name; further names are aliases")
	w.when(e.Slots < 0 || e.Slots > slotsMax, prefix+"slots", e.Slots, "use 1 to %d, or 0 for model.slots", slotsMax)
	return true
}

func (e *EngineConfig) checkNames(w *wrong, prefix string) {
	w.when(len(e.Aliases) > aliasesMax, prefix+"aliases", fmt.Sprintf("%d names", len(e.Aliases)), "use at most %d", aliasesMax)
	for i, a := range e.Aliases {
		bad := a == "" || a == "*" || a == task.AnyModel || (&task.Spec{ID: "x", Model: a, Prompt: "x"}).Validate() != nil || slices.Contains(e.Models, a) || slices.Contains(e.Aliases[:i], a)
		w.when(bad, fmt.Sprintf("%saliases[%d]", prefix, i), fmt.Sprintf("%q", a), "use a name that tasks may ask for, other than its model's and its other aliases")
	}
}

// limits are those of an engine's processes.
func (l *LimitsConfig) limits() infer.Limits {
	if l == nil {
		return infer.Limits{}
	}
	return infer.Limits{CPU: l.CPU, Memory: uint64(l.Memory), IOWeight: l.IOWeight, Nice: l.Nice}
}
