package persistence

import (
	"fmt"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// identity is what a data directory is. It changes only when the node takes part in a
// group or leaves it, when it becomes part of a cluster, and when its host is renamed.
//
// Format 1 is a node alone: it has replica 1 of every shard. Format 2 belongs to a cluster and
// lists its replicas, which a program that knows only format 1 must not overlook.
type identity struct {
	Format     int            `json:"format"`
	Shards     int            `json:"shards"`
	Deployment uint64         `json:"deployment"`          // of dragonboat; see deployment
	Node       string         `json:"node"`                // UUID: members of a group are named by it
	Cluster    string         `json:"cluster,omitempty"`   // "": alone
	Replica    uint64         `json:"replica,omitempty"`   // format 1: of every shard
	Replicas   []localReplica `json:"replicas,omitempty"`  // format 2: by shard; ID 0 is none
	Whole      bool           `json:"whole,omitempty"`     // the logs founded here began empty; see growable
	Encrypted  bool           `json:"encrypted,omitempty"` // Badger's files are; see cipher.go
	Host       string         `json:"host"`                // dragonboat keeps its files below the host's name
	Created    time.Time      `json:"created"`
	Complete   bool           `json:"complete"` // false until the first Open went well
}

// localReplica is this node's replica of a shard.
type localReplica struct {
	ID       uint64 `json:"id"`
	Joined   bool   `json:"joined,omitempty"`   // as a learner of a group that existed; it may be a voter since
	Dropping bool   `json:"dropping,omitempty"` // Drop began: it is never started again
}

const (
	formatAlone   = 1
	formatCluster = 2

	// deployment is dragonboat's name for a set of hosts that may talk to each other. It
	// is the same for all clusters: every member of a group must have the value that the group was made with, and
	// a node that was alone made its groups before it had a cluster id. Clusters are kept apart
	// by Network, which authenticates the cluster id, and by the directory's own.
	deployment = 1
)

// check refuses what this program can not read, and fills in the replicas of format 1.
func (d *identity) check(path string) error {
	switch {
	case d.Format == formatAlone && d.Replica != 0:
		d.Replicas = make([]localReplica, d.Shards)
		for i := range d.Replicas {
			d.Replicas[i].ID = d.Replica
		}
	case d.Format == formatCluster && d.Cluster != "" && len(d.Replicas) == d.Shards:
	case d.Format == formatAlone || d.Format == formatCluster:
		return fault.New(fault.Corrupt, "store.open", path, "names no replicas").WithRemedy(remedyCorrupt)
	default:
		return fault.New(fault.Invalid, "store.open", path, "format %d; this program reads %d and %d", d.Format, formatAlone, formatCluster).
			WithRemedy("use the version that wrote it")
	}
	return nil
}

// stored is what meta.json says.
func (d identity) stored() identity {
	if d.Cluster == "" {
		d.Format, d.Replica, d.Replicas = formatAlone, aloneReplica, nil
	} else {
		d.Format, d.Replica = formatCluster, 0
	}
	return d
}

// aloneReplica is the id of a founder's replicas.
const aloneReplica = 1

// found makes this node the only member of every group.
func (d *identity) found() {
	d.Whole = true
	for i := range d.Replicas {
		d.Replicas[i] = localReplica{ID: aloneReplica}
	}
}

// join tells whether the directory may belong to the cluster o names. A directory of a node that was
// alone becomes part of it.
func (d *identity) join(o Options) error {
	path := o.Dir
	switch {
	case d.Cluster == o.Cluster:
	case o.Cluster == "":
		return fault.New(fault.Invalid, "store.open", path, "the directory belongs to cluster %s", d.Cluster).
			WithRemedy("start it with the settings of that cluster: its replicas need their peers")
	case d.Cluster != "":
		return fault.New(fault.Invalid, "store.open", path, "the directory belongs to cluster %s, not to %s", d.Cluster, o.Cluster).
			WithRemedy("start it with the settings of its own cluster, or this node with an empty data directory")
	case d.Replica != aloneReplica:
		return fault.New(fault.Invalid, "store.open", path, "the directory is replica %d of its groups", d.Replica).
			WithRemedy("only a directory that Open or a restore made can become part of a cluster")
	}
	d.Cluster = o.Cluster
	return nil
}

// replica returns the replica of a shard that may run, or 0.
func (d *identity) replica(shard int) uint64 {
	if r := d.Replicas[shard]; !r.Dropping {
		return r.ID
	}
	return 0
}

// logged returns the replica whose log is verified; 0: none. shard may be any number.
func (d *identity) logged(shard int) uint64 {
	if shard < 0 || shard >= len(d.Replicas) {
		return 0
	}
	return d.replica(shard)
}

// empty tells whether no shard has a replica, not even one that is being dropped.
func (d *identity) empty() bool {
	for _, r := range d.Replicas {
		if r.ID != 0 {
			return false
		}
	}
	return true
}

func shardName(shard int) string { return fmt.Sprintf("shard %d", shard) }
