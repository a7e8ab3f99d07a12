package persistence

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/logger"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// dragonboat logs through package-level loggers. They go to the logger of the store opened
// last; what dragonboat calls a warning (every election) is debug here.
var (
	raftLogs     atomic.Pointer[slog.Logger]
	raftLogsOnce sync.Once
)

func routeRaftLogs(l *slog.Logger) {
	raftLogs.Store(l)
	raftLogsOnce.Do(func() {
		logger.SetLoggerFactory(func(pkg string) logger.ILogger { return raftLogger{pkg} })
	})
}

type raftLogger struct{ pkg string }

func (l raftLogger) log(level slog.Level, f string, a []any) {
	ctx := context.Background()
	if to := raftLogs.Load(); to != nil && to.Enabled(ctx, level) {
		to.Log(ctx, level, strings.TrimSpace(fmt.Sprintf(f, a...)), "lib", "dragonboat/"+l.pkg)
	}
}

func (raftLogger) SetLevel(logger.LogLevel)      {}
func (raftLogger) Debugf(string, ...any)         {}
func (raftLogger) Infof(string, ...any)          {}
func (l raftLogger) Warningf(f string, a ...any) { l.log(slog.LevelDebug, f, a) }

// Errorf: that a peer cannot be reached is ordinary, and gossip has said so; it would be said again every second.
func (l raftLogger) Errorf(f string, a ...any) {
	level := slog.LevelError
	if l.pkg == "transport" {
		level = slog.LevelDebug
	}
	l.log(level, f, a)
}

func (l raftLogger) Panicf(f string, a ...any) {
	l.log(slog.LevelError, f, a)
	panic(fmt.Sprintf(f, a...))
}

// recovered runs f, which calls into a library that may panic on bytes it does not
// understand, and turns that into fault.Corrupt.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v", r)
			}
			err = fault.New(fault.Corrupt, "store.open", "", "%w", cause).WithRemedy(remedyCorrupt)
			if to := raftLogs.Load(); to != nil {
				to.Debug("recovered", "panic", r, "stack", string(debug.Stack()))
			}
		}
	}()
	return f()
}
