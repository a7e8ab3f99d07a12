package tool

import (
	"time"

	"github.com/tetratelabs/wazero"
)

// epoch is when every run begins.
var epoch = time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC)

// clock is a module's own: it moves a little each time that it is read, and as far as the module sleeps, which takes no time.
type clock struct{ ns int64 }

const clockTick = time.Microsecond

func (c *clock) read() int64 {
	c.ns += int64(clockTick)
	return c.ns
}

func (c *clock) wall() (sec int64, nsec int32) {
	t := epoch.Add(time.Duration(c.read()))
	return t.Unix(), int32(t.Nanosecond())
}

func (c *clock) sleep(ns int64) { c.ns += max(0, ns) }

// keep lets a module have the clock.
func (c *clock) keep(m wazero.ModuleConfig) wazero.ModuleConfig {
	return m.WithNanotime(c.read, 1).WithWalltime(c.wall, 1).WithNanosleep(c.sleep)
}
