package members

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	logEvery = 10 * time.Second // the same complaint is logged this often
	logKinds = 64               // complaints told apart; beyond it they are counted as one
	logWords = 4                // a complaint is known by its first words
)

// gossipLog takes memberlist's log lines, "[LEVEL] memberlist: text". What memberlist calls an error is
// mostly a peer that died just now, so nothing is more than a warning here, and each kind
// of complaint is logged once in logEvery.
type gossipLog struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last map[string]*complaint
}

type complaint struct {
	at   time.Time
	kept int // not logged since at
}

func newGossipLog(log *slog.Logger) *gossipLog {
	return &gossipLog{log: log, now: time.Now, last: map[string]*complaint{}}
}

// Write logs one line. It never fails.
func (g *gossipLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	level := slog.LevelDebug
	if strings.HasPrefix(text, "[") {
		if tag, rest, ok := strings.Cut(text, "] "); ok {
			text = strings.TrimPrefix(rest, "memberlist: ")
			if (tag == "[WARN" || tag == "[ERR") && !ordinary(text) {
				level = slog.LevelWarn
			}
		}
	}
	ctx := context.Background()
	if !g.log.Enabled(ctx, level) {
		return len(line), nil
	}
	if level == slog.LevelDebug {
		g.log.Log(ctx, level, "gossip: "+text)
		return len(line), nil
	}
	if kept, ok := g.due(text); ok {
		attrs := []any{"text", text}
		if kept > 0 {
			attrs = append(attrs, "not_logged", kept)
		}
		if m := meaning(text); m != "" {
			attrs = append(attrs, "means", m)
		}
		g.log.Log(ctx, level, "gossip complains", attrs...)
	}
	return len(line), nil
}

// ordinary tells what memberlist warns of though it is how gossip works: a node that was slow to answer tells the others
// that it lives. Should it be dead after all, Joined and Left say so.
func ordinary(text string) bool {
	return strings.HasPrefix(text, "Refuting a suspect message") || strings.HasPrefix(text, "Refuting a dead message")
}

// due tells whether a complaint may be logged now, and how many like it were not.
func (g *gossipLog) due(text string) (kept int, ok bool) {
	words := strings.Fields(text)
	kind := strings.Join(words[:min(len(words), logWords)], " ")
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.last[kind]
	if c == nil {
		if len(g.last) >= logKinds {
			kind = ""
			c = g.last[kind]
		}
		if c == nil {
			c = &complaint{}
			g.last[kind] = c
		}
	}
	if now := g.now(); c.at.IsZero() || now.Sub(c.at) >= logEvery {
		kept, c.at, c.kept = c.kept, now, 0
		return kept, true
	}
	c.kept++
	return 0, false
}
