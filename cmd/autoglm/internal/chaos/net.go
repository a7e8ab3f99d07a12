package chaos

import "os/exec"

// Net is the wires between the nodes, which are numbered from 0.
type Net interface {
	// Host is the address of a node; "" when all are on loopback.
	Host(i int) string
	// Wrap makes a node's process live on its own wires.
	Wrap(i int, cmd *exec.Cmd) *exec.Cmd
	// Cut makes packets get lost without a word, from now on.
	Cut(cuts ...Cut) error
	// Slow makes a node's wire carry only so many kilobits a second, with a short queue; Heal ends that too.
	Slow(i, kbit int) error
	// Heal ends all cuts.
	Heal() error
	// Cuts tells whether Cut and Slow work.
	Cuts() bool
	// Close removes the wires. It is safe to call twice.
	Close() error
}

// Cut is one direction between two nodes.
type Cut struct {
	From, To int
	Ports    []uint16 // only packets from or to these ports; empty: all
}

// Loopback is a Net on which nothing can be cut.
type Loopback struct{}

// Host returns "".
func (Loopback) Host(int) string { return "" }

// Wrap returns cmd.
func (Loopback) Wrap(_ int, cmd *exec.Cmd) *exec.Cmd { return cmd }

// Cut does nothing: see Cuts.
func (Loopback) Cut(...Cut) error { return nil }

// Slow does nothing: see Cuts.
func (Loopback) Slow(int, int) error { return nil }

// Heal does nothing.
func (Loopback) Heal() error { return nil }

// Cuts returns false.
func (Loopback) Cuts() bool { return false }

// Close does nothing.
func (Loopback) Close() error { return nil }

// Both is a cut in both directions between every a and every b.
func Both(a, b []int, ports ...uint16) (cuts []Cut) {
	for _, x := range a {
		for _, y := range b {
			cuts = append(cuts, Cut{x, y, ports}, Cut{y, x, ports})
		}
	}
	return cuts
}
