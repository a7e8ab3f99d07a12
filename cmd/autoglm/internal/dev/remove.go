package dev

import (
	"context"
	"slices"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// RemoveNode forgets a node that is down, and returns what was known of it: the next dev does not start it. Its folder
// stays, and its name is not given again. A node that runs is a Conflict; the last node cannot be removed.
func (c *Cluster) RemoveNode(ctx context.Context, name string) (Node, error) {
	_, release, err := c.operate(ctx, name) // nobody starts it meanwhile
	if err != nil {
		return Node{}, err
	}
	defer release()
	n, err := c.forget(name)
	if err != nil {
		return Node{}, err
	}
	if err := c.save(); err != nil {
		return Node{}, err
	}
	c.say("%s is forgotten; its data stay in %s", name, n.DataDir)
	return n, nil
}

func (c *Cluster) forget(name string) (Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.file.node(name)
	switch {
	case n == nil: // another command was faster
		return Node{}, c.unknown(name)
	case c.procs[name].child != nil:
		return Node{}, fault.New(fault.Conflict, "dev.remove", name, "runs").
			WithRemedy("empty it with autoglm cluster drain %s --wait, then autoglm dev stop %s", name, name)
	case len(c.file.Nodes) == 1:
		return Node{}, fault.New(fault.Refused, "dev.remove", name, "is the last node").WithRemedy("remove the folder %s once dev has ended", c.dir)
	}
	gone := *n
	c.file.Made = max(c.file.Made, len(c.file.Nodes)) // before there are fewer
	c.file.Nodes = slices.DeleteFunc(slices.Clone(c.file.Nodes), func(n Node) bool { return n.Name == name })
	delete(c.procs, name)
	return gone, nil
}
