package node

import (
	"context"
	"math"
	"time"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/file"
)

// staleMin leaves room for a new owner of a shard between two words of a file that is coming.
const staleMin = 10 * time.Second

func (c *Config) checkFiles(w *wrong) {
	w.when(c.Files.StaleAfter < staleMin, "files.stale_after", c.Files.StaleAfter, "use at least %v", staleMin)
	w.when(c.Files.BytesMax > math.MaxInt64, "files.bytes_max", c.Files.BytesMax, "use at most 8EiB, or 0 for no limit")
}

// openFiles makes the library of the cluster's files.
func (n *Node) openFiles() {
	n.files = file.NewLibrary(n.sys.Router, blob.New(n.sys.Router), n.now, file.WithBytesMax(int64(n.cfg.Files.BytesMax)), file.WithStaleAfter(n.cfg.Files.StaleAfter))
	n.files.Admits(func(ctx context.Context, whose string, bytes int64) (func(bool), error) {
		if err := n.sys.Quota.Admit(ctx, whose, 0, 0, int(bytes)); err != nil {
			return nil, err
		}
		return func(kept bool) {
			fresh := 0
			if kept {
				fresh = int(bytes)
			}
			n.sys.Quota.Settled(whose, 0, 0, int(bytes), fresh)
		}, nil
	})
}
