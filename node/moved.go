package node

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A data directory may come back under another name: a machine that was renamed, say. Its replicas are the directory's, not the name's. What must
// not be is two processes on copies of one directory: both would vote as the same replica, and what one acknowledged the other
// has never heard of. So the name is kept beside the data, a new one is said, and of two living twins the later one ends.
const nameFile = "name"

// keepName notes under which name the directory serves, and returns the one it had before, "" where that is the same or unknown.
func keepName(path, name string) (before string, err error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if before = strings.TrimSpace(string(b)); before == name {
		return "", nil
	}
	return before, persistence.ReplaceFile(path, []byte(name+"\n"))
}

// renamed says that the data directory serves under a new name.
func (j *joint) renamed() error {
	path := j.n.dataPath(nameFile)
	before, err := keepName(path, j.id.Name)
	if err != nil {
		return fault.New(fault.Unavailable, "node.cluster", path, "%w", err).WithRemedy("check the directory, its permissions and its disk")
	}
	if before != "" {
		j.n.log.Warn("this data directory was that of a node of another name: it serves under the new one now, and no other process may have a copy of it",
			"name", j.id.Name, "before", before)
	}
	return nil
}

// endTwin ends this node when another one that lives has the same data directory and started before.
func (j *joint) endTwin() {
	if err := twin(j.list.Self(), j.list.Members()); err != nil {
		j.n.fatal(err)
	}
}

func twin(self members.Member, all []members.Member) error {
	for _, m := range all {
		if self.Node != "" && m.Node == self.Node && m.Name != self.Name && m.Boot < self.Boot {
			return fault.New(fault.Conflict, "node.cluster", self.Name, "node %s runs with a copy of this data directory, or did a moment ago", m.Name).
				WithRemedy("two copies of one directory must never run: give this node an empty one; if it was moved here, wait until autoglm cluster status shows %s as gone", m.Name)
		}
	}
	return nil
}
