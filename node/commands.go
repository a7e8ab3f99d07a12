package node

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// anyCommand in model.allowed_commands lets the operator start whatever there is.
const anyCommand = "any"

func runsCommand(s wire.EngineSpec) bool { return s.Preset != "" || len(s.Command) > 0 }

// command is what an engine of url: command starts.
func (e *EngineConfig) command() (*infer.Command, error) {
	args := e.Command
	if e.Preset != "" {
		args = infer.Preset(e.Preset)
	}
	return infer.ParseCommand(args, e.Env)
}

func (e *EngineConfig) checkCommand(w *wrong, prefix string) {
	known := infer.Preset(e.Preset) != nil
	w.when(e.Preset != "" && !known, prefix+"preset", e.Preset, "use %s, or write the whole command", strings.Join(infer.Presets(), ", "))
	w.when(e.Preset != "" && len(e.Command) > 0, prefix+"command", "set beside preset", "leave one of them out")
	if e.Preset == "" || known && len(e.Command) == 0 {
		cmd, err := e.command()
		switch {
		case len(e.Command) == 1 && strings.ContainsAny(e.Command[0], " \t"):
			w.add(invalidConfig(prefix+"command", fmt.Sprintf("%q, one text", e.Command[0]), "write it as a list: [program, argument, …]; no shell reads it"))
		case err != nil:
			w.add(fault.New(fault.Invalid, "config", prefix+"command", "%w", errors.Unwrap(err)).WithRemedy("%s", fault.RemedyOf(err)))
		case e.Path == "" && cmd.NamesPath():
			w.add(invalidConfig(prefix+"path", "empty", "name the model's file or folder: the command says {{.Path}}"))
		}
	}
	if e.Path != "" {
		_, err := os.Stat(e.Path)
		w.when(err != nil, prefix+"path", e.Path+", which cannot be read", "name the model's file or folder on this node's machine")
	}
	w.when(len(e.Models) > 1, prefix+"models", strings.Join(e.Models, ", "), "the server serves one model: name it here once; further names are aliases")
	w.when(len(e.Models) == 1 && strings.HasPrefix(e.Models[0], "-"), prefix+"models", strings.Join(e.Models, ""), "use a name that does not begin like a flag")
	w.when(e.Slots < 0 || e.Slots > concurrencyMax, prefix+"slots", e.Slots, "use 1 to %d, or 0 for concurrency", concurrencyMax)
	w.when(e.APIKeyEnv != "", prefix+"api_key_env", e.APIKeyEnv, "leave it out: the server listens on this machine alone, and for this node")
}

// newCommandPool makes the processes of a command.
func (n *Node) newCommandPool(c *EngineConfig, name string, limit int) (*infer.Pool, error) {
	cmd, err := c.command()
	if err != nil {
		return nil, err
	}
	o := n.poolOptions(c, name)
	o.Command, o.Model, o.Workers, o.Slots, o.Ctx = cmd, c.Path, c.Workers, orDefault(c.Slots, limit), c.Ctx
	if len(c.Models) > 0 {
		o.ModelID = c.Models[0]
	}
	return infer.NewPool(o)
}

// mayStart refuses a command that came over the API, unless this node's configuration lets it: whoever may name a command, or the environment of
// one, may run anything as this node's user.
func (n *Node) mayStart(c *EngineConfig) error {
	return commandAllowed(n.cfg.Model.Allowed, n.cfg.Engines, c)
}

func commandAllowed(allowed []string, configured []EngineConfig, c *EngineConfig) error {
	same := func(x EngineConfig) bool { // with another path, or other numbers
		return x.URL == EngineCommand && x.Preset == c.Preset && slices.Equal(x.Command, c.Command) && maps.Equal(x.Env, c.Env)
	}
	itself := func(x EngineConfig) bool { // what is put back
		return same(x) && x.Path == c.Path && x.GPU == c.GPU && slices.Equal(x.Models, c.Models)
	}
	switch {
	case c.URL != EngineCommand, slices.Contains(allowed, anyCommand), slices.ContainsFunc(configured, itself):
		return nil
	case slices.ContainsFunc(configured, same):
		return c.plain()
	case c.Preset != "" && len(c.Env) == 0 && slices.Contains(allowed, c.Preset):
		return nil
	}
	need := anyCommand
	if c.Preset != "" && len(c.Env) == 0 {
		need = c.Preset
	}
	return fault.New(fault.Refused, "node.engines", c.Name, "this node starts no such program over the API").
		WithRemedy("put the engine into its configuration, or %s into model.allowed_commands there, and start it again", need)
}

// plainForm is what nothing reads as more than a name: no shell, and no other program that a command may hand it to.
var plainForm = regexp.MustCompile(`^[A-Za-z0-9._:/@+,-]*$`)

// plain refuses fields that a template may put where a shell reads them.
func (e *EngineConfig) plain() error {
	for _, x := range append([]string{e.Path, e.GPU}, e.Models...) {
		if !plainForm.MatchString(x) {
			return fault.New(fault.Refused, "node.engines", e.Name, "%q is put into a command of the configuration, which may have a shell read it", x).
				WithRemedy("use letters, digits and . _ : / @ + , - only; or put the engine into the node's configuration, or any into model.allowed_commands there, and start it again")
		}
	}
	return nil
}

// specShown is a spec for those who only look: a variable may hold a secret.
func specShown(c *EngineConfig) wire.EngineSpec {
	s := specOf(c)
	s.Env = masked(s.Env)
	return s
}

func masked(env map[string]string) map[string]string {
	env = maps.Clone(env)
	for name := range env {
		env[name] = "(set)"
	}
	return env
}
