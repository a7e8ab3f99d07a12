package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	settings "github.com/open-autoglm/autoglm/node"
)

// Values of --engine.
const (
	engineFixed    = "fixed"
	engineEmbedded = settings.EngineEmbedded
)

// urlSlots is what a node asks at once of an engine behind a URL unless it is told otherwise.
const urlSlots = 16

// promptsMax bounds what is read of --prompts.
const promptsMax = 10_000

// embedded starts the same workers as a node would, with the same model and settings, and drives them over their
// sockets. A node unpacks the shipped model when it starts, so one is started first and ended again.
func (r *runner) embedded(ctx context.Context, dir string) (*driven, error) {
	prompts, err := r.readPrompts()
	if err != nil {
		return nil, err
	}
	c, _, err := settings.Load("", os.Environ(), nil)
	if err != nil {
		return nil, err
	}
	m := c.Model
	if m.Path == "" {
		if m.Path, err = r.unpacked(ctx, filepath.Join(dir, "unpack")); err != nil {
			return nil, err
		}
	}
	sockets, err := os.MkdirTemp("", "glm-") // a socket's path must be short
	if err != nil {
		return nil, fmt.Errorf("bench.engine: %w", err)
	}
	pool, err := infer.NewPool(infer.PoolOptions{SocketDir: sockets, Binary: m.Worker, Model: m.Path, ModelID: "direct", Workers: m.Workers, Slots: m.Slots,
		Ctx: m.Ctx, Threads: m.Threads, LoadTimeout: m.LoadTimeout, StopTimeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	pool.Start()
	if err := pool.WaitReady(ctx, m.Workers); err != nil {
		pool.Stop()
		return nil, err
	}
	note := fmt.Sprintf("embedded: %d workers of %d slots, %d different prompts", m.Workers, m.Slots, len(prompts))
	d := &driven{engines: pool.Engines(), each: m.Slots, model: "direct", prompts: prompts, flags: []string{"--engine", engineEmbedded}, note: note, stop: pool.Stop}
	if r.o.nodes > 1 { // all nodes use these workers: of their own there would be too many for the processors
		d.each, d.queue, d.flags, d.shared = urlSlots*r.o.nodes, d.model, nil, true
		for i := range m.Workers {
			d.flags = append(d.flags, "--engine", "unix://"+filepath.Join(sockets, fmt.Sprintf("w%d.sock", i)))
		}
		d.note += fmt.Sprintf(", %d requests at once for each", d.each)
	}
	d.stop = func() { pool.Stop(); _ = os.RemoveAll(sockets) } // of the system's folder for such
	return d, nil
}

// behind drives an engine that somebody else started.
func (r *runner) behind(ctx context.Context, _ string) (*driven, error) {
	prompts, err := r.readPrompts()
	if err != nil {
		return nil, err
	}
	each := urlSlots * r.o.nodes
	h, err := infer.NewHTTP(infer.HTTPOptions{URL: r.o.engine, Concurrency: each})
	if err != nil {
		return nil, err
	}
	models, err := h.Models(ctx)
	if err == nil && len(models) == 0 {
		err = errors.New("it serves no model")
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("bench.engine: %w", err)
	}
	note := fmt.Sprintf("%s: %d requests at once, %d different prompts", r.o.engine, each, len(prompts))
	return &driven{engines: []infer.Engine{h}, each: each, model: models[0], queue: models[0], prompts: prompts, flags: []string{"--engine", r.o.engine}, shared: true, note: note, stop: h.Close}, nil
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "unix://")
}

// unpacked lets a node unpack the model that it ships, and finds it.
func (r *runner) unpacked(ctx context.Context, dir string) (string, error) {
	n, err := newNode(r.binary, dir, "--engine", engineEmbedded)
	if err != nil {
		return "", err
	}
	defer n.kill()
	if _, err := n.start(ctx); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(dir, "data", "models", "*.gguf"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("bench.engine: the node unpacked %d models, want one: %w", len(found), errors.Join(err, os.ErrNotExist))
	}
	return found[0], nil
}

// readPrompts returns the prompts of --prompts, or else the shipped ones.
func (r *runner) readPrompts() ([]prompt, error) {
	b := r.shipped
	if r.o.prompts != "" {
		var err error
		if b, err = os.ReadFile(r.o.prompts); err != nil {
			return nil, fmt.Errorf("--prompts: %w", err)
		}
	}
	if len(b) == 0 {
		return nil, errors.New("--engine " + r.o.engine + " needs --prompts FILE: JSON lines with prompt and max_tokens")
	}
	return parsePrompts(b)
}

// parsePrompts reads JSON lines of tasks; of each, only what the engine is asked.
func parsePrompts(b []byte) ([]prompt, error) {
	var all []prompt
	in := bufio.NewScanner(bytes.NewReader(b))
	in.Buffer(nil, 8<<20)
	for n := 1; in.Scan() && len(all) < promptsMax; n++ {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		var p prompt
		if err := json.Unmarshal(in.Bytes(), &p); err != nil {
			return nil, fmt.Errorf("--prompts: line %d: %w", n, err)
		}
		if p.Text == "" {
			return nil, fmt.Errorf("--prompts: line %d has no prompt", n)
		}
		all = append(all, p)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("--prompts: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("--prompts: there are none")
	}
	return all, nil
}
