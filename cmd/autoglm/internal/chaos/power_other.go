//go:build !linux

package chaos

import "errors"

// ForgetfulDisks are there on Linux only.
type ForgetfulDisks struct{}

// CanForget returns why there are none.
func CanForget() error { return errors.New("disks that forget are mounted with FUSE: use Linux") }

// NewForgetfulDisks fails.
func NewForgetfulDisks(string, string, int) (*ForgetfulDisks, error) { return nil, CanForget() }

// Lose fails.
func (*ForgetfulDisks) Lose() (int, error) { return 0, CanForget() }

// PowerLoss is a fault that cannot happen.
func (*ForgetfulDisks) PowerLoss() Fault { return Fault{Name: "power-loss"} }

// Close does nothing.
func (*ForgetfulDisks) Close() error { return nil }
