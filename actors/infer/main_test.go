package infer

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the fake worker, and a parent that gets killed: the tests start this binary
// again with fakeEnv set. As a test it fails the package when a goroutine outlives it.
func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeEnv); mode != "" {
		fakeMain(mode)
		return
	}
	goleak.VerifyTestMain(m)
}
