package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Namespaces is a Net of network namespaces: each node has its own, with one wire to a bridge where the clients are.
// Packets that a Cut names are dropped as they come in, by nftables, so that nobody is told.
type Namespaces struct {
	id    int // of this process: in all names and addresses
	nodes int

	mu     sync.Mutex
	slowed map[int]bool
	closed bool
}

// protocol numbers of IP
const (
	protoTCP = 6
	protoUDP = 17
)

// NewNamespaces makes the wires for nodes. It needs root, and iproute2.
func NewNamespaces(nodes int) (*Namespaces, error) {
	n := &Namespaces{id: os.Getpid(), nodes: nodes, slowed: map[int]bool{}}
	if nodes > 200 {
		return nil, fmt.Errorf("%d nodes: 200 addresses are planned", nodes)
	}
	err := n.ip("link add %s type bridge", n.bridge())
	if err == nil {
		err = errors.Join(n.ip("addr add %s/24 dev %s", n.addr(254), n.bridge()), n.ip("link set %s up", n.bridge()))
	}
	for i := range nodes {
		if err != nil {
			break
		}
		ns := n.space(i)
		for _, args := range []string{
			"netns add " + ns,
			fmt.Sprintf("link add %s type veth peer name eth0 netns %s", n.wire(i), ns),
			fmt.Sprintf("link set %s master %s up", n.wire(i), n.bridge()),
			"-n " + ns + " link set lo up",
			fmt.Sprintf("-n %s addr add %s/24 dev eth0", ns, n.Host(i)),
			"-n " + ns + " link set eth0 up",
		} {
			if err = n.ip("%s", args); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Namespaces) bridge() string     { return fmt.Sprintf("agb%d", n.id) } // names have room for 15 bytes
func (n *Namespaces) wire(i int) string  { return fmt.Sprintf("agw%dn%d", n.id, i) }
func (n *Namespaces) space(i int) string { return fmt.Sprintf("autoglm%dn%d", n.id, i) }
func (n *Namespaces) addr(host int) string {
	return fmt.Sprintf("10.%d.%d.%d", 128+n.id>>8&127, n.id&255, host)
}

func (n *Namespaces) ip(format string, args ...any) error {
	cmd := exec.Command("ip", strings.Fields(fmt.Sprintf(format, args...))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return nil
}

// Host is the node's address; clients reach it too.
func (n *Namespaces) Host(i int) string { return n.addr(i + 1) }

// Wrap runs cmd in the node's namespace: ip becomes the program, so that signals reach it.
func (n *Namespaces) Wrap(i int, cmd *exec.Cmd) *exec.Cmd {
	w := exec.Command("ip", append([]string{"netns", "exec", n.space(i), cmd.Path}, cmd.Args[1:]...)...)
	w.Env, w.Dir = cmd.Env, cmd.Dir
	return w
}

// Cuts returns true.
func (n *Namespaces) Cuts() bool { return true }

// Cut adds to the cuts that there are.
func (n *Namespaces) Cut(cuts ...Cut) error {
	byNode := map[int][]Cut{}
	for _, c := range cuts {
		byNode[c.To] = append(byNode[c.To], c)
	}
	for to, cuts := range byNode {
		err := n.filter(to, func(nft *nftables.Conn) error {
			table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: cutTable})
			chain := nft.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
			for _, c := range cuts {
				for _, exprs := range n.rules(c) {
					nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
				}
			}
			return nft.Flush()
		})
		if err != nil {
			return fmt.Errorf("cut %s: %w", n.Host(to), err)
		}
	}
	return nil
}

const cutTable = "autoglm-cuts"

// rules drop what comes from a node: everything, or what a port of either side is part of.
func (n *Namespaces) rules(c Cut) (rules [][]expr.Any) {
	from := netip.MustParseAddr(n.Host(c.From)).As4()
	source := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, // IPv4 source
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: from[:]},
	}
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	if len(c.Ports) == 0 {
		return [][]expr.Any{append(source, drop)}
	}
	for _, port := range c.Ports {
		for _, proto := range []byte{protoTCP, protoUDP} {
			for offset := range uint32(2) { // source port, destination port
				rules = append(rules, append(append([]expr.Any(nil), source...),
					&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
					&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2 * offset, Len: 2},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)}, drop))
			}
		}
	}
	return rules
}

// Slow limits what leaves a node; what reaches it is not held up, as on many lines.
func (n *Namespaces) Slow(i, kbit int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.slowed[i] = true
	return n.tc(i, "replace", "tbf", "rate", fmt.Sprintf("%dkbit", kbit), "burst", "32kbit", "latency", "400ms")
}

func (n *Namespaces) tc(i int, verb string, args ...string) error {
	cmd := exec.Command("ip", append([]string{"netns", "exec", n.space(i), "tc", "qdisc", verb, "dev", "eth0", "root"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return nil
}

func (n *Namespaces) quicken() (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.slowed {
		err = errors.Join(err, n.tc(i, "del"))
		delete(n.slowed, i)
	}
	return err
}

// Heal ends all cuts.
func (n *Namespaces) Heal() error {
	if err := n.quicken(); err != nil {
		return err
	}
	for i := range n.nodes {
		err := n.filter(i, func(nft *nftables.Conn) error {
			tables, err := nft.ListTablesOfFamily(nftables.TableFamilyIPv4)
			if err != nil {
				return err
			}
			for _, t := range tables {
				if t.Name == cutTable {
					nft.DelTable(t)
				}
			}
			return nft.Flush()
		})
		if err != nil {
			return fmt.Errorf("heal %s: %w", n.Host(i), err)
		}
	}
	return nil
}

// filter speaks to the nftables of a node's namespace.
func (n *Namespaces) filter(i int, do func(*nftables.Conn) error) error {
	f, err := os.Open(filepath.Join("/run/netns", n.space(i)))
	if err != nil {
		return err
	}
	defer f.Close()
	nft, err := nftables.New(nftables.WithNetNSFd(int(f.Fd())))
	if err != nil {
		return err
	}
	return do(nft)
}

// Close removes namespaces, wires and bridge. Nodes must have ended. It is safe to call twice.
func (n *Namespaces) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	var err error
	for i := range n.nodes {
		if _, serr := os.Stat(filepath.Join("/run/netns", n.space(i))); serr == nil {
			err = errors.Join(err, n.ip("netns del %s", n.space(i))) // its end of the wire goes with it, and so the other
		}
	}
	if _, serr := os.Stat(filepath.Join("/sys/class/net", n.bridge())); serr == nil {
		err = errors.Join(err, n.ip("link del %s", n.bridge()))
	}
	return err
}
