package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A lineage names one founding of a cluster: when, and by which data directory. Two clusters may come to have one id, when a
// node that was wiped is told to start one: then the younger lineage gives way as soon as the two see each other, before people
// take one for the other. It sorts by time.
//
//	node ── founds ──► DIR/lineage ──► gossip ──► who enters keeps it too
const lineageFile = "lineage"

func newLineage(node string, now time.Time) string {
	return fmt.Sprintf("%013d-%s", now.UnixMilli(), node)
}

func (j *joint) readLineage() error {
	b, err := os.ReadFile(j.n.dataPath(lineageFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.New(fault.Unavailable, "node.cluster", j.n.dataPath(lineageFile), "%w", err)
	}
	j.lineage = strings.TrimSpace(string(b))
	return nil
}

// keepLineage makes it durable before anything happens under it.
func (j *joint) keepLineage(l string) error {
	path := j.n.dataPath(lineageFile)
	if err := persistence.ReplaceFile(path, []byte(l+"\n")); err != nil {
		return fault.New(fault.Unavailable, "node.cluster", path, "%w", err).WithRemedy("check the directory, its permissions and its disk")
	}
	j.lineage = l
	return nil
}

// enter takes over the lineage of the cluster that this node has found, unless it has founded it.
func (j *joint) enter() error {
	if j.lineage != "" {
		return nil
	}
	for _, m := range j.list.Members() {
		if m.Founded && m.Lineage != "" && m.Name != j.id.Name {
			return j.keepLineage(m.Lineage)
		}
	}
	return nil // of an older version, or gone again: the next start takes it over
}

// compareLineages ends this node when an older cluster of the same id is there: what this one holds belongs to another, and
// both would answer for the same tasks.
func (j *joint) compareLineages() {
	own := j.list.Self().Lineage
	if own == "" {
		return
	}
	for _, m := range j.list.Members() {
		if m.Founded && m.Lineage != "" && m.Lineage < own {
			j.n.fatal(fault.New(fault.Conflict, "node.cluster", j.id.Name,
				"node %s belongs to a cluster of the same id that was started earlier; this node was started as another one", m.Name).
				WithRemedy("to let it enter the older cluster, move %s away and start it with --join and without --bootstrap-expect", j.n.cfg.DataDir))
			return
		}
	}
}
