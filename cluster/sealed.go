package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// printsKey is the journal, one in each shard, that says under which keys its rows were ever sealed. It is clear, and written before
// the first row under a key, so whoever has the shard, by its disk, by Raft's snapshot or by a backup, knows what it takes
// to read it before it meets a row.
var printsKey = persistence.Key{Kind: "encryption", ID: "keys"}

// printRow is a row of it.
type printRow struct {
	Key seal.Print `json:"key"`
}

// CheckKeys tells whether keys open all that the replicas of this node hold, as far as they have applied their logs. A Refused fault
// names the key that is missing. For who starts a node: a node must not serve what it cannot read.
func CheckKeys(store persistence.Store, keys *seal.Keys) error {
	for n := range store.Shards() {
		prints, _, err := readPrints(store.Journal(n))
		if fault.KindOf(err) == fault.Unavailable {
			continue // no replica of it here
		}
		if err == nil {
			err = keys.Check(prints)
		}
		if err != nil {
			return fmt.Errorf("shard %d: %w", n, err)
		}
	}
	return nil
}

func readPrints(j persistence.Journal) (prints []seal.Print, last uint64, err error) {
	l, err := j.Read(printsKey, 0)
	if err != nil {
		return nil, 0, err
	}
	for _, row := range l.Rows {
		var p printRow
		if err := json.Unmarshal(row.Data, &p); err != nil {
			return nil, 0, fault.New(fault.Corrupt, "cluster.keys", printsKey.String(), "row %d: %w", row.Seq, err)
		}
		prints = append(prints, p.Key)
	}
	return prints, l.Last, nil
}

// keepPrint checks that the keys open what the shard holds, and journals the one that seals from now on, once it may: what is sealed with
// a key that the others lack takes the shard away from them.
func keepPrint(ctx context.Context, j persistence.Journal, epoch uint64, keys *seal.Keys, may func() error) error {
	for {
		prints, last, err := readPrints(j)
		if err == nil {
			err = keys.Check(prints)
		}
		if err != nil {
			return err
		}
		seals := keys.Seals()
		if seals == "" || slices.Contains(prints, seals) {
			return nil
		}
		if may != nil {
			if err := may(); err != nil {
				if !Sleep(ctx, appendRetryWait) {
					return err
				}
				continue
			}
		}
		data, err := json.Marshal(printRow{seals})
		if err != nil {
			return fault.New(fault.Invalid, "cluster.keys", printsKey.String(), "%w", err)
		}
		done := make(chan error, 1)
		j.Append(epoch, []persistence.Write{{Key: printsKey, After: last, Data: data}}, appendTimeout, func(out []persistence.Outcome, err error) {
			if err == nil {
				err = out[0].Err
			}
			done <- err
		})
		if err = <-done; err == nil {
			return nil
		}
		if k := fault.KindOf(err); !k.Retryable() && k != fault.Conflict || k == fault.Fenced || !Sleep(ctx, appendRetryWait) {
			return err
		}
	}
}
