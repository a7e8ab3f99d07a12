package node

import (
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// What a node tells others that it knows (members.Member.Knows). A number is added with what a node of the version before cannot own or
// route, however well it skips what it does not know; it stands for all before it.
const (
	knowsTenants = 1 // keys, tenants, the audit log, sinks
	knowsErase   = 2 // persistence.Write.Erase: what is deleted for good
	knowsWhen    = 3 // schedules, dead tasks that were tried again, quotas
	knowsSteps   = 4 // steps that are objects
	knowsBytes   = 5 // quotas of bytes
	knowsLanes   = 6 // steps with a model of their own, tools, and second runs for other nodes
	knowsAll     = knowsLanes
)

// allKnow refuses what a living node does not know: its shards could be asked for it. One that is down and comes back old makes that
// unavailable on its shards until it is upgraded, and loses nothing.
func allKnow(all []knownMember, level int, what string) error {
	var old []string
	for _, m := range all {
		if m.Alive && m.Knows < level {
			old = append(old, m.Name+" ("+m.Version+")")
		}
	}
	if len(old) == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "node.knows", "", "the cluster is being upgraded: of %s nothing is known to %s", what, strings.Join(old, ", ")).
		WithRemedy("upgrade all nodes first: autoglm cluster status shows their versions")
}
