package infer

import (
	"context"
	"strings"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// ComeUp returns once every worker is ready, or a fault as soon as one of them has ended: for who has another pool to go on with, and need
// not wait until it works at last.
func (p *Pool) ComeUp(ctx context.Context) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		ready, words := 0, ""
		for _, s := range p.Status() {
			switch {
			case s.State == ChildReady:
				ready++
			case s.LastExit != "":
				return fault.New(fault.Unavailable, "infer.pool", p.o.Model, "worker %s ended: %s%s", s.Name, s.LastExit, said(s.Stderr)).WithRemedy("%s", p.remedy())
			default:
				words = said(s.Stderr)
			}
		}
		if ready == len(p.children) {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		case <-p.ctx.Done():
		}
		return fault.New(fault.Timeout, "infer.pool", p.o.Model, "%d of %d workers were ready in time%s", ready, len(p.children), words).WithRemedy("give a large model more time: model.load_timeout")
	}
}

// Try asks an engine one thing, as a task would: whether it is well, what it serves, and one token where it answers chats.
func Try(ctx context.Context, e Engine, endpoints []string) error {
	if h, ok := e.(healthy); ok {
		if err := h.Health(ctx); err != nil {
			return err
		}
	}
	models, err := e.Models(ctx)
	if err != nil {
		return err
	}
	chats := len(endpoints) == 0
	for _, x := range endpoints {
		chats = chats || x == task.EndpointChat
	}
	if !chats || len(models) == 0 {
		return nil
	}
	_, err = e.Do(ctx, &Request{Model: models[0], Messages: []Message{{Role: "user", Content: "Hello"}}, MaxTokens: 1, Temperature: new(float64), Key: "probe"})
	if kind := fault.KindOf(err); kind == fault.Invalid && strings.Contains(err.Error(), "reached its length") {
		return nil // it thinks before it speaks: it is well
	}
	return err
}
