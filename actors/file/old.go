package file

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Old walks a tenant's files in one shard that were made before a time, oldest first, until f returns false. scan is that of the shard.
func Old(scan func(index string, from, to []byte, f func(key, value []byte) bool) error, whose string, before time.Time, f func(Info) bool) error {
	var bad error
	to := binary.BigEndian.AppendUint64(nil, uint64(before.UnixMicro()))
	err := scan(tenant.Index(IndexOldest, whose), nil, to, func(_, value []byte) bool {
		var in Info
		if e := json.Unmarshal(value, &in); e != nil {
			bad = fault.New(fault.Corrupt, "file.old", IndexOldest, "a row: %w", e)
			return false
		}
		return f(in)
	})
	if err == nil {
		err = bad
	}
	return err
}
