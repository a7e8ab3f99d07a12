package persistence

import (
	"log/slog"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Options says where a node keeps its data and how much it may use for that. Zero
// fields take the default named beside them.
type Options struct {
	Dir    string // data directory; made when it is missing
	Shards int    // fixed when the directory is created: 0 takes what it has, 16 for a new one

	// Network connects this node with its peers. nil: it is alone, and a new directory has a
	// replica of every shard at once. Otherwise a new directory has none before Found or Join. Open takes it over: Close
	// closes it, and so does an Open that fails.
	Network Network
	Cluster string // id of the cluster that Network reaches; needed with it, and only then

	// DiskReserve is how many bytes of the disk stay free: below it no journal
	// is created, below half of it nothing is written at all. 512 MiB.
	DiskReserve uint64

	ApplyWorkers   int           // groups that apply at the same time; 16
	InFlightCount  int           // Appends of one shard that wait for Raft; 1024
	InFlightBytes  int           // bytes of all Appends that wait for Raft; 64 MiB
	LogBytes       int           // Raft log bytes of one shard after which it is cut; 8 MiB
	LogEntries     int           // Raft log entries of one shard after which it is cut; 20,000
	MemTableBytes  int           // Badger's memtable; 8 MiB, not less
	BlockCache     int           // bytes of Badger's block cache; 16 MiB
	Heads          int           // last sequences remembered per node; 65,536
	OpenTimeout    time.Duration // how long Open waits for the shards to lead; 30 s
	AcquireTimeout time.Duration // one try of Acquire; 2 s
	VerifyEvery    time.Duration // how often a running node reads all tables to find flipped bits; 6 h

	// EncryptionKey, of 16, 24 or 32 bytes, has Badger encrypt its files; a directory keeps to what it began with. See cipher.go for what
	// that leaves clear. nil: none.
	EncryptionKey []byte

	// Damaged is told once, when a running store finds damage: from then on every read fails. nil: only the log tells.
	Damaged func(error)

	Logger *slog.Logger     // slog.Default()
	Now    func() time.Time // time.Now; used for what is written for people, never for a decision
}

const (
	shardsDefault = 16
	shardsMax     = 1024
	memTableMin   = 8 << 20 // 15 % of it hold one Append of AppendMax
)

func (o Options) withDefaults() (Options, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.ApplyWorkers, 16)
	def(&o.InFlightCount, 1024)
	def(&o.InFlightBytes, 64<<20)
	def(&o.LogBytes, 8<<20)
	def(&o.LogEntries, 20_000)
	def(&o.MemTableBytes, memTableMin)
	def(&o.BlockCache, 16<<20)
	def(&o.Heads, 1<<16)
	if o.DiskReserve == 0 {
		o.DiskReserve = 512 << 20
	}
	if o.OpenTimeout == 0 {
		o.OpenTimeout = 30 * time.Second
	}
	if o.AcquireTimeout == 0 {
		o.AcquireTimeout = 2 * time.Second
	}
	if o.VerifyEvery == 0 {
		o.VerifyEvery = 6 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "store.open", o.Dir, format, args...)
	}
	switch {
	case o.Dir == "":
		return o, bad("no data directory is given")
	case o.Shards < 0 || o.Shards > shardsMax:
		return o, bad("%d shards: the bound is 1..%d", o.Shards, shardsMax)
	case (o.Network == nil) != (o.Cluster == ""):
		return o, bad("Network and Cluster go together")
	case len(o.EncryptionKey) != 0 && len(o.EncryptionKey) != 16 && len(o.EncryptionKey) != 24 && len(o.EncryptionKey) != 32:
		return o, bad("an EncryptionKey of %d bytes: 16, 24 or 32 it must be", len(o.EncryptionKey))
	case o.MemTableBytes < memTableMin:
		return o, bad("MemTableBytes %d is below %d", o.MemTableBytes, memTableMin)
	case o.InFlightBytes < 2*WriteMax:
		return o, bad("InFlightBytes %d is below two of the largest writes (%d)", o.InFlightBytes, 2*WriteMax)
	case min(o.ApplyWorkers, o.InFlightCount, o.LogBytes, o.LogEntries, o.BlockCache, o.Heads) < 1:
		return o, bad("a limit is below 1")
	}
	return o, nil
}
