//go:build !linux

package chaos

import "errors"

// NewNamespaces fails: network namespaces are Linux's.
func NewNamespaces(int) (Loopback, error) {
	return Loopback{}, errors.New("network namespaces need Linux")
}
