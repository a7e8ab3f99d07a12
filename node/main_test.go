package node

import (
	"os"
	"testing"
)

// TestMain is also a server with OpenAI's API: tests start this binary again with childEnv set.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childMain()
		return
	}
	os.Exit(m.Run())
}
