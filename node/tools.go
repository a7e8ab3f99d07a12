package node

import (
	"runtime"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tool"
)

// startTools makes what runs the tools of steps here: engines of their own, beside those of the table.
func (n *Node) startTools() (all []actors.Engine, err error) {
	c := n.cfg.Tools
	nets, err := prefixes("tools.allowed_nets", c.AllowedNets)
	if err != nil {
		return nil, err
	}
	if c.HTTPConcurrency > 0 {
		h := tool.NewHTTP(egress.Policy{AllowPrivate: c.AllowPrivate, Allow: nets})
		n.toolStops = append(n.toolStops, h.Close)
		all = append(all, actors.Engine{Engine: h, Endpoints: []string{task.EndpointTool}, Concurrency: c.HTTPConcurrency})
	}
	if c.WasmDir != "" {
		w := tool.NewWasm(c.WasmDir)
		n.toolStops = append(n.toolStops, w.Close)
		all = append(all, actors.Engine{Engine: w, Endpoints: []string{task.EndpointTool}, Concurrency: orDefault(c.WasmConcurrency, runtime.NumCPU())})
	}
	n.tools = len(all)
	return all, nil
}

// stopTools ends what nobody runs on any more.
func (n *Node) stopTools() {
	for _, stop := range n.toolStops {
		stop()
	}
}
