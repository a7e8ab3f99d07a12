package persistence

import (
	"flag"
	"io"
	"log/slog"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirVar); dir != "" {
		crashChild(dir) // this process is the child of TestCrash; it does not return
	}
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		f.Value.Set("25") // each opens a store several times
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil))) // damage and full disks are logged on purpose here
	os.Exit(m.Run())
}
