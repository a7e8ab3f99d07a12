package infer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Command is how to start a server with OpenAI's API as a child: a program and its arguments, each of them a template, and its environment.
// No shell reads it. An argument that is a template and comes out empty is left out, so that a flag can depend on a field.
type Command struct {
	args []commandPart
	env  []commandPart // with their names
	uses commandUses
}

// CommandFields are what the templates may say.
type CommandFields struct {
	Path   string // of the model: a file or a folder
	Model  string // the name that tasks ask for
	Host   string // loopback, for a server that listens on a port
	Port   int    // a free one, another at each start
	Socket string // a unix socket's path that ends in .sock, in place of host and port
	Slots  int    // answers made at once
	Ctx    int    // tokens of a prompt with its answer; 0: the model's own
	GPU    string // as CUDA_VISIBLE_DEVICES has it
}

type commandPart struct {
	name string // of an environment variable
	text string
	tmpl *template.Template // nil: as it stands
}

// commandUses tells which fields matter to a command.
type commandUses struct{ path, model, port, socket bool }

// commandHost is where children listen: nobody but this machine asks them.
const commandHost = "127.0.0.1"

// commandFuncs has what templates need beside Go's own.
var commandFuncs = template.FuncMap{"mul": func(a, b int) int { return a * b }}

// presets are commands of servers that are known. llama-server divides its context among its slots, the others have one for each request.
var presets = map[string][]string{
	"llama-server": {"llama-server", "--model", "{{.Path}}", "--alias", "{{.Model}}", "--host", "{{.Socket}}", "--jinja", "--parallel", "{{.Slots}}",
		"{{if .Ctx}}--ctx-size{{end}}", "{{if .Ctx}}{{mul .Ctx .Slots}}{{end}}"},
	"vllm": {"vllm", "serve", "{{.Path}}", "--host", "{{.Host}}", "--port", "{{.Port}}", "--served-model-name", "{{.Model}}", "--max-num-seqs", "{{.Slots}}",
		"{{if .Ctx}}--max-model-len{{end}}", "{{if .Ctx}}{{.Ctx}}{{end}}"},
	"sglang": {"python3", "-m", "sglang.launch_server", "--model-path", "{{.Path}}", "--host", "{{.Host}}", "--port", "{{.Port}}", "--served-model-name", "{{.Model}}",
		"--max-running-requests", "{{.Slots}}", "{{if .Ctx}}--context-length{{end}}", "{{if .Ctx}}{{.Ctx}}{{end}}"},
}

// Presets lists the servers whose command is known.
func Presets() []string { return slices.Sorted(maps.Keys(presets)) }

// Preset returns the command of a server that is known, nil for any other.
func Preset(name string) []string { return slices.Clone(presets[name]) }

// ParseCommand checks a command and every template of it.
func ParseCommand(args []string, env map[string]string) (*Command, error) {
	bad := func(format string, a ...any) *fault.Error {
		return fault.New(fault.Invalid, "infer.command", "", format, a...)
	}
	if len(args) == 0 || args[0] == "" {
		return nil, bad("names no program").WithRemedy("write [program, argument, …]")
	}
	c := &Command{}
	for i, a := range args {
		p, err := parsePart("", a)
		if err != nil {
			return nil, bad("argument %d: %w", i, err)
		}
		c.args = append(c.args, p)
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, bad("%q is no name of an environment variable", name)
		}
		p, err := parsePart(name, env[name])
		if err != nil {
			return nil, bad("env %s: %w", name, err)
		}
		c.env = append(c.env, p)
	}
	if c.args[0].tmpl != nil {
		return nil, bad("the program %q is a template", c.args[0].text).WithRemedy("name it; only its arguments and environment may be templates")
	}
	if err := c.learnUses(); err != nil {
		return nil, bad("%w", err).WithRemedy("the fields are .Path .Model .Host .Port .Socket .Slots .Ctx .GPU")
	}
	if c.uses.port == c.uses.socket {
		return nil, bad("does not say where the server listens, or says it twice").WithRemedy("tell the server {{.Port}}, or {{.Socket}} where it can listen on a unix socket")
	}
	return c, nil
}

func parsePart(name, text string) (p commandPart, err error) {
	p = commandPart{name: name, text: text}
	switch {
	case strings.ContainsRune(text, 0):
		return p, fmt.Errorf("%q has a zero byte", text)
	case strings.Contains(text, "{{"):
		p.tmpl, err = template.New("command").Funcs(commandFuncs).Option("missingkey=error").Parse(text)
	}
	return p, err
}

func (p *commandPart) render(f CommandFields) (string, error) {
	if p.tmpl == nil {
		return p.text, nil
	}
	var b strings.Builder
	err := p.tmpl.Execute(&b, f)
	return b.String(), err
}

// Render returns the command line and NAME=value for each variable.
func (c *Command) Render(f CommandFields) (args, env []string, err error) {
	for _, p := range c.args {
		s, err := p.render(f)
		if err != nil {
			return nil, nil, err
		}
		if s != "" || p.tmpl == nil {
			args = append(args, s)
		}
	}
	for _, p := range c.env {
		s, err := p.render(f)
		if err != nil {
			return nil, nil, err
		}
		env = append(env, p.name+"="+s)
	}
	return args, env, nil
}

// Program is what is started.
func (c *Command) Program() string { return c.args[0].text }

// learnUses finds out which fields change what comes out.
func (c *Command) learnUses() error {
	f := CommandFields{Path: "/path", Model: "model", Host: commandHost, Port: 1, Socket: "/socket", Slots: 1, Ctx: 1, GPU: "0"}
	base, err := c.flat(f)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		change func(*CommandFields)
		uses   *bool
	}{
		{func(f *CommandFields) { f.Path = "/other" }, &c.uses.path},
		{func(f *CommandFields) { f.Model = "other" }, &c.uses.model},
		{func(f *CommandFields) { f.Port = 2 }, &c.uses.port},
		{func(f *CommandFields) { f.Socket = "/other" }, &c.uses.socket},
	} {
		other := f
		x.change(&other)
		now, err := c.flat(other)
		if err != nil {
			return err
		}
		*x.uses = now != base
	}
	f.Ctx = 0 // the other branch of what depends on it
	_, err = c.flat(f)
	return err
}

func (c *Command) flat(f CommandFields) (string, error) {
	args, env, err := c.Render(f)
	return strings.Join(append(args, env...), "\x00"), err
}

// NamesModel tells whether it says {{.Model}}; else its engine is asked what it serves.
func (c *Command) NamesModel() bool { return c.uses.model }

// NamesPath tells whether it says {{.Path}}.
func (c *Command) NamesPath() bool { return c.uses.path }
