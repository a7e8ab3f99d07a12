//go:build linux

package chaos

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inside runs f in a node's namespace, on a thread that ends with it. Sockets that f opens stay there.
func (n *Namespaces) inside(i int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not fit for anything else
		fd, err := os.Open(filepath.Join("/run/netns", n.space(i)))
		if err == nil {
			defer fd.Close()
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// ear is a socket for datagrams in a namespace; wires keep their order, so what arrives tells what was lost before it.
type ear struct {
	*net.UDPConn
	at *net.UDPAddr
}

func (n *Namespaces) listen(t *testing.T, i, port int) ear {
	t.Helper()
	var e ear
	require.NoError(t, n.inside(i, func() (err error) {
		e.at = &net.UDPAddr{IP: net.ParseIP(n.Host(i)), Port: port}
		e.UDPConn, err = net.ListenUDP("udp4", e.at)
		return err
	}))
	t.Cleanup(func() { e.Close() })
	return e
}

func (e ear) tell(t *testing.T, to ear, word string) {
	t.Helper()
	_, err := e.WriteToUDP([]byte(word), to.at)
	require.NoError(t, err)
}

func (e ear) hears(t *testing.T, word string) {
	t.Helper()
	b := make([]byte, 2000)
	require.NoError(t, e.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, _, err := e.ReadFromUDP(b)
	require.NoError(t, err)
	require.Equal(t, word, string(b[:n]))
}

func TestWiresAreCut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n, err := NewNamespaces(3)
	if err != nil {
		t.Skipf("this machine has no network namespaces for us: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, n.Close()); require.NoError(t, n.Close()) })
	require.True(t, n.Cuts())
	var gossip, raft [3]ear
	for i := range 3 {
		gossip[i], raft[i] = n.listen(t, i, gossipPort), n.listen(t, i, raftPort)
	}
	// What was sent before "end" and is not heard was lost.
	check := func(what string, from, to int, gossips, rafts bool) {
		t.Helper()
		gossip[from].tell(t, gossip[to], what)
		raft[from].tell(t, raft[to], what)
		if gossips {
			gossip[to].hears(t, what)
		}
		if rafts {
			raft[to].hears(t, what)
		}
	}
	heal := func() {
		t.Helper()
		require.NoError(t, n.Heal())
		for from := range 3 {
			for to := range 3 {
				if from != to {
					check(fmt.Sprintf("healed %d %d", from, to), from, to, true, true)
				}
			}
		}
	}
	heal()
	require.NoError(t, n.Cut(Cut{From: 0, To: 1}))
	check("one way", 0, 1, false, false)
	check("the other way", 1, 0, true, true)
	check("another node", 0, 2, true, true)
	heal()
	require.NoError(t, n.Cut(Both([]int{0}, []int{1, 2})...))
	check("alone", 0, 1, false, false)
	check("alone", 0, 2, false, false)
	check("alone", 2, 0, false, false)
	check("the others", 1, 2, true, true)
	heal()
	require.NoError(t, n.Cut(Both([]int{0}, []int{1}, raftPort)...))
	require.NoError(t, n.Cut(Cut{From: 2, To: 1}), "cuts add up")
	check("raft is cut", 0, 1, true, false)
	check("raft is cut", 1, 0, true, false)
	check("cut too", 2, 1, false, false)
	heal()

	require.NoError(t, n.Slow(0, 64))
	began := time.Now()
	for range 3 { // past the burst, 1,000 bytes take an eighth of a second
		gossip[0].tell(t, gossip[1], strings.Repeat("x", 1400))
	}
	for range 3 {
		gossip[1].hears(t, strings.Repeat("x", 1400))
	}
	require.Greater(t, time.Since(began), 10*time.Millisecond)
	heal()
}
