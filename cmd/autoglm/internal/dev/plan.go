package dev

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Defaults and bounds of a local cluster.
const (
	NodesDefault   = 3
	NodesMax       = 32   // of one machine
	HTTPDefault    = 8080 // port of node-1's API; the next node has the next one
	ClusterDefault = 7946 // port of node-1's gossip; Raft and actor messages take the two after it
	KeepPorts      = -1   // the ports that dev.json has, else the default ones

	clusterStride = 10 // between the gossip ports of two nodes
	clusterPorts  = 3  // that one node takes
	portMax       = 65535
)

// State is what the supervisor knows of a node's process.
type State string

// The states of a node.
const (
	Down     State = "down"     // no process
	Starting State = "starting" // a process that is not ready yet
	Ready    State = "ready"    // it said so once
	Stopping State = "stopping" // told to end

	// Only Status tells these, of a node that was ready once.
	Unready State = "not ready" // it says so
	Silent  State = "no answer" // its process is there: stopped by a signal, or hung
)

// Node is one node of a local cluster, as dev.json has it.
type Node struct {
	Name      string    `json:"name"`
	State     State     `json:"state"`
	PID       int       `json:"pid"` // 0 while down
	HTTP      string    `json:"http"`
	URL       string    `json:"url"`     // of the API
	Cluster   string    `json:"cluster"` // gossip; Raft and actor messages have the two ports after it
	DataDir   string    `json:"data_dir"`
	Identity  string    `json:"identity"` // folder with its certificate
	Log       string    `json:"log"`      // what its processes said since dev started
	StartedAt time.Time `json:"started_at,omitzero"`
	Reason    string    `json:"reason,omitempty"` // why it is down
}

// File is DIR/dev.json: written whole whenever something changes, kept when dev ends.
type File struct {
	Format int    `json:"format"`
	PID    int    `json:"pid"`    // of the dev that runs; 0: none
	Socket string `json:"socket"` // where that one listens
	Expect int    `json:"expect"` // nodes that the cluster began with
	Made   int    `json:"made"`   // nodes that there ever were: a name is not used twice; 0 in files of before

	HTTPBase    int    `json:"http_base"`    // port of node-1's API as it was asked for; 0: free ones
	ClusterBase int    `json:"cluster_base"` // port of node-1's gossip, likewise
	Nodes       []Node `json:"nodes"`
}

// node returns the node of that name, or nil.
func (f *File) node(name string) *Node {
	for i := range f.Nodes {
		if f.Nodes[i].Name == name {
			return &f.Nodes[i]
		}
	}
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i+1) }

// index is the i of nodeName: nodes before it may have been removed.
func (n *Node) index() int {
	i, err := strconv.Atoi(strings.TrimPrefix(n.Name, "node-"))
	if err != nil {
		return NodesMax // a name that somebody wrote into dev.json: none of the first
	}
	return i - 1
}

// grow returns old with as many nodes as were asked for; want 0 keeps what there is. Nodes that exist keep their
// addresses unless other ports are asked for than before. Ports are 0 where a free one is to be found.
func grow(old File, dir string, want, httpBase, clusterBase int, host func(i int) string) (File, error) {
	f := old
	if want == 0 {
		want = max(len(old.Nodes), 1)
		if len(old.Nodes) == 0 {
			want = NodesDefault
		}
	}
	switch {
	case want < 1 || want > NodesMax:
		return f, fault.New(fault.Invalid, "dev.plan", "nodes", "is %d: use 1 to %d", want, NodesMax)
	case want < len(old.Nodes):
		return f, fault.New(fault.Refused, "dev.plan", dir, "the cluster there has %d nodes, not %d", len(old.Nodes), want).
			WithRemedy("leave --nodes out, stop single nodes with `autoglm dev stop NAME`, forget them with `autoglm dev remove NAME`, or begin anew with another --data-dir")
	}
	if f.Format == 0 { // a new one
		f.Format, f.Expect, f.HTTPBase, f.ClusterBase = formatNow, want, HTTPDefault, ClusterDefault
	}
	keepHTTP, keepCluster := rebase(&f.HTTPBase, httpBase), rebase(&f.ClusterBase, clusterBase)
	f.Nodes, f.Made = nil, max(old.Made, len(old.Nodes))
	for at := range want {
		var n Node
		if at < len(old.Nodes) {
			n = old.Nodes[at]
		} else {
			n.Name = nodeName(f.Made)
			f.Made++
		}
		i := n.index()
		n.State, n.PID, n.Reason, n.StartedAt = Down, 0, "", time.Time{}
		n.DataDir, n.Log = filepath.Join(dir, n.Name), filepath.Join(dir, n.Name+".log")
		n.Identity = filepath.Join(dir, pkiDir, "nodes", n.Name)
		ip, httpStep, clusterStep := "127.0.0.1", 1, clusterStride
		if host != nil { // an address of its own: the same ports
			ip, httpStep, clusterStep = host(i), 0, 0
		}
		var err error
		if n.HTTP == "" || !keepHTTP {
			if n.HTTP, err = place(n.Name, ip, f.HTTPBase, i*httpStep, 1); err != nil {
				return f, err
			}
		}
		if n.Cluster == "" || !keepCluster {
			if n.Cluster, err = place(n.Name, ip, f.ClusterBase, i*clusterStep, clusterPorts); err != nil {
				return f, err
			}
		}
		n.URL = "http://" + n.HTTP
		f.Nodes = append(f.Nodes, n)
	}
	return f, nil
}

// rebase tells whether the ports of before hold, and changes the base if not.
func rebase(base *int, asked int) (keep bool) {
	if asked == KeepPorts || asked == *base {
		return true
	}
	*base = asked
	return false
}

// place returns the address of a node with room for width ports from the base's offset on.
func place(name, host string, base, offset, width int) (string, error) {
	port := base + offset
	if base == 0 {
		port = 0
	}
	if port < 0 || port+width-1 > portMax {
		return "", fault.New(fault.Invalid, "dev.plan", name, "would have port %d: there are 1 to %d", port, portMax).
			WithRemedy("begin lower, or with 0 for free ports")
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// serveArgs is the command line of a node: itself, all others, and what was passed through. Only this machine reaches its API, so
// nobody is asked for a key, unless what is passed says otherwise.
func serveArgs(f *File, n *Node, passed []string) []string {
	args := []string{"serve", "--data-dir", n.DataDir, "--identity", n.Identity, "--set", "access.keys=off", "--http", n.HTTP, "--cluster-listen", n.Cluster}
	var join []string
	for _, other := range f.Nodes {
		if other.Name == n.Name {
			continue
		}
		join = append(join, other.Cluster)
	}
	if len(join) > 0 {
		args = append(args, "--join", strings.Join(join, ","))
	}
	if n.index() < f.Expect { // later ones only enter a cluster that exists
		args = append(args, "--bootstrap-expect", strconv.Itoa(f.Expect))
	}
	return append(args, passed...)
}

// keepsMajority refuses to stop a node when fewer than a majority of all would stay up: the shards need one to answer. It is pure.
func keepsMajority(nodes []Node, name string) error {
	up, stops := 0, false
	for _, n := range nodes {
		switch {
		case n.State != Ready && n.State != Starting:
		case n.Name == name:
			stops = true
		default:
			up++
		}
	}
	if need := len(nodes)/2 + 1; stops && up < need {
		return fault.New(fault.Refused, "dev.stop", name, "of %d nodes only %d would stay up, and the shards need a majority, %d: no task could be submitted, claimed or read until another one is started again", len(nodes), up, need).
			WithRemedy("start one of the others first with autoglm dev start, or stop it all the same with --force; nothing that was acknowledged is lost")
	}
	return nil
}
