//go:build !linux

package chaos

import "errors"

// SmallDisks are Linux's.
type SmallDisks struct{}

// NewSmallDisks fails.
func NewSmallDisks(string, int) (*SmallDisks, error) {
	return nil, errors.New("disks in memory need Linux")
}

// Data returns "".
func (*SmallDisks) Data(int) string { return "" }

// Args returns nothing.
func (*SmallDisks) Args() []string { return nil }

// Fill does nothing.
func (*SmallDisks) Fill(int, int64) error { return nil }

// Free does nothing.
func (*SmallDisks) Free(int) error { return nil }

// Close does nothing.
func (*SmallDisks) Close() error { return nil }
