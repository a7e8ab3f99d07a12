package node

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// savedTable is what was loaded at run time, in a file of data_dir. It is no persistent actor: which engines a node has is about the GPUs and files
// of that one machine, and the node starts its engines before there is a quorum to read an actor from.
type savedTable struct {
	Engines []savedEngine `json:"engines"`
}

type savedEngine struct {
	Name    string          `json:"name"`
	Version int             `json:"version"`
	Newest  int             `json:"newest"`
	Spec    wire.EngineSpec `json:"spec"`
	Former  *savedFormer    `json:"former,omitempty"`
}

type savedFormer struct {
	Version int             `json:"version"`
	Spec    wire.EngineSpec `json:"spec"`
}

// save replaces the file.
func (t *table) save() error {
	t.mu.Lock()
	defer t.mu.Unlock() // one at a time
	out := savedTable{Engines: slices.Clone(t.ignored)}
	for _, e := range t.entries {
		if e.configured || e.live == nil {
			continue
		}
		s := savedEngine{Name: e.name, Version: e.version, Newest: e.newest, Spec: specOf(&e.cfg)}
		if e.former != nil {
			s.Former = &savedFormer{e.former.version, specOf(&e.former.cfg)}
		}
		out.Engines = append(out.Engines, s)
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err == nil {
		err = persistence.ReplaceSecretFile(t.n.dataPath(tableFile), append(b, '\n'))
	}
	if err != nil {
		return fault.New(fault.Unavailable, "node.engines", tableFile, "the change is made, and is forgotten when this node starts again: it cannot be written: %w", err)
	}
	return nil
}

// forget leaves out what of an entry was kept though it could not be used. Under mu.
func (t *table) forget(e *entry) {
	if !e.configured {
		t.ignored = slices.DeleteFunc(t.ignored, func(s savedEngine) bool { return s.Name == e.name })
	}
}

// restore makes the engines that were loaded before this node was stopped. One that the configuration has, too, is as that says; one whose file
// is gone stays in the table, and says so.
func (t *table) restore() error {
	b, err := os.ReadFile(t.n.dataPath(tableFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var saved savedTable
	if err == nil {
		err = json.Unmarshal(b, &saved)
	}
	if err != nil {
		return fault.New(fault.Corrupt, "node.engines", t.n.dataPath(tableFile), "%w", err).WithRemedy("mend it, or remove it: it has only the engines that were loaded with autoglm model load")
	}
	for _, s := range saved.Engines {
		if i := slices.IndexFunc(t.entries, func(e *entry) bool { return e.name == s.Name }); i >= 0 {
			t.ignored = append(t.ignored, s)
			t.entries[i].note = "another one of this name was loaded, and is ignored: the configuration says otherwise"
			t.n.log.Warn("an engine that was loaded is ignored: the configuration has one of this name", "engine", s.Name)
			continue
		}
		e := &entry{name: s.Name, version: s.Version, newest: s.Newest}
		if s.Former != nil {
			e.former = &former{version: s.Former.Version}
			e.former.cfg, _ = configOf(s.Name, s.Former.Spec) // checked when it is brought back
		}
		t.entries = append(t.entries, e)
		if e.cfg, err = configOf(s.Name, s.Spec); err == nil {
			err = t.n.mayStart(&e.cfg)
		}
		if err == nil {
			e.live, err = t.n.makeEngine(&e.cfg, engineName(e.name, e.version))
		}
		if err != nil {
			t.ignored = append(t.ignored, s)
			now := t.n.now()
			e.change = &wire.EngineChange{ID: "start", What: "load", State: changeFails, Error: fault.Shown(err), At: now, Ended: now}
			t.n.log.Error("an engine that was loaded cannot be loaded again", "engine", s.Name, "err", err)
		}
	}
	return nil
}
