package node

import (
	"context"
	"os"
	"slices"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	bulkDir     = "bulk" // in the data directory: temporary files
	webhooksMax = 8
)

func (c *Config) checkBulk(w *wrong) {
	b := c.Bulk
	w.when(b.Window < 1 || b.Window > 1<<20, "bulk.window", b.Window, "use 1 to 1048576")
	w.when(b.DriversMax < 1 || b.DriversMax > 1024, "bulk.drivers_max", b.DriversMax, "use 1 to 1024")
	w.when(len(c.Webhook.URLs) > webhooksMax, "webhook.urls", len(c.Webhook.URLs), "name at most %d", webhooksMax)
	for _, u := range c.Webhook.URLs {
		if err := (&task.Spec{Prompt: "x", CallbackURL: u}).Validate(); err != nil || u == "" {
			w.add(invalidConfig("webhook.urls", u, "use http(s)://host[:port]/path"))
		}
	}
}

// openBulk lets batches be driven: the node has begun to own their shards.
func (n *Node) openBulk() error {
	dir := n.dataPath(bulkDir)
	err := os.RemoveAll(dir) // of a process before this one
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "node.start", dir, "%w", err).WithRemedy("make the data directory writable")
	}
	n.batches.Attach(bulk.Options{
		Router: n.sys.Router, Files: n.files, Tasks: n.sys.Tasks, Dir: dir, Window: n.cfg.Bulk.Window, DriversMax: n.cfg.Bulk.DriversMax,
		TimeoutMax: n.cfg.Task.TimeoutMax, Hooks: slices.Clone(n.cfg.Webhook.URLs), Next: n.callAgain,
		Submit: func(ctx context.Context, lines []*task.Submit) []error {
			errs := make([]error, len(lines))
			for i, r := range n.svc.SubmitLines(ctx, lines) {
				errs[i] = r.Err
			}
			return errs
		},
		Served: func(ctx context.Context, endpoint, model string) error {
			return n.svc.CheckEndpoint(ctx, endpoint, model)
		},
		Steps:   n.svc.stepsKnown,
		Counted: func(outcome string, lines uint64) { n.meter.BulkLines.WithLabelValues(outcome).Add(float64(lines)) },
		Ended:   func(status string) { n.meter.BulkEnded.WithLabelValues(status).Inc() },
		Post:    func(ctx context.Context, d callback.Delivery) error { return n.poster.Post(ctx, d) },
	})
	n.files.Outputs(n.batches)
	return nil
}
