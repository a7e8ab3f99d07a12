package dev

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Where free ports are looked for: below those that the kernel hands out to connections (Linux: from 32768), because a
// node that was killed must find its own port free when it comes back.
const (
	freeMin   = 12000
	freeMax   = 32000
	freeTries = 100 // looks, before the machine is called full
)

// settlePorts replaces ports 0 by free ones, and refuses ports that somebody has. Between this look and the node's own
// start somebody may still take one: the node then says so.
func settlePorts(nodes []Node) error {
	var held []io.Closer // until all are found, so that no two nodes get the same
	defer func() { closeAll(held) }()
	for i := range nodes {
		n := &nodes[i]
		for _, a := range []struct {
			addr  *string
			width int
			udp   bool
			flag  string
		}{{&n.HTTP, 1, false, "--http-port"}, {&n.Cluster, clusterPorts, true, "--cluster-port"}} {
			addr, closers, err := settle(*a.addr, a.width, a.udp)
			held = append(held, closers...)
			if err != nil {
				return fault.New(fault.Conflict, "dev.ports", n.Name, "cannot listen on %s: %w", addr, err).
					WithRemedy("stop what uses it, or choose other ports with %s (0: free ones)", a.flag)
			}
			*a.addr = addr
		}
		n.URL = "http://" + n.HTTP
	}
	return nil
}

// settle takes width neighbouring ports beginning with addr's, or any free ones when that is 0. On failure addr is the
// one that could not be had.
func settle(addr string, width int, udp bool) (string, []io.Closer, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, nil, err
	}
	first, err := strconv.Atoi(p)
	if err != nil {
		return addr, nil, err
	}
	if first != 0 {
		return take(host, first, width, udp)
	}
	for range freeTries {
		at, held, terr := take(host, freeMin+rand.IntN(freeMax-freeMin), width, udp)
		if terr == nil {
			return at, held, nil
		}
		closeAll(held)
		err = terr
	}
	return addr, nil, err
}

func take(host string, first, width int, udp bool) (addr string, held []io.Closer, err error) {
	for port := first; port < first+width; port++ {
		at := net.JoinHostPort(host, strconv.Itoa(port))
		l, err := net.Listen("tcp", at)
		if err != nil {
			return at, held, plain(err)
		}
		held = append(held, l)
		if udp && port == first { // gossip only
			u, err := net.ListenPacket("udp", at)
			if err != nil {
				return at + " (UDP)", held, plain(err)
			}
			held = append(held, u)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(first)), held, nil
}

func closeAll(held []io.Closer) {
	for _, h := range held {
		h.Close()
	}
}

// plain leaves out what the message says anyway.
func plain(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return syscall.EADDRINUSE
	}
	return err
}
