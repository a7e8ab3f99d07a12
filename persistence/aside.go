package persistence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Exists tells whether dir is a data directory: Open then takes its identity from there.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, metaName))
	return err == nil
}

// SetAside moves what Open found damaged into a new folder inside the data directory, which may be the root of a
// volume, and returns that folder. The directory is a new one then. It may be repeated after a crash: the identity goes last, so
// that a directory is either still the damaged one or new. Nothing is deleted.
func SetAside(dir string, now time.Time) (to string, err error) {
	to = filepath.Join(dir, "damaged-"+now.UTC().Format("20060102T150405.000Z"))
	err = os.Mkdir(to, 0o700)
	for _, name := range []string{raftName, storeName, metaName} {
		if err == nil {
			if err = os.Rename(filepath.Join(dir, name), filepath.Join(to, name)); errors.Is(err, fs.ErrNotExist) {
				err = nil // it may be what was missing
			}
		}
	}
	if err == nil {
		err = errors.Join(syncDir(to), syncDir(dir))
	}
	if err != nil {
		return to, fault.New(fault.Unavailable, "store.aside", dir, "%w", err).
			WithRemedy("move %s, %s and %s away by hand", raftName, storeName, metaName)
	}
	return to, nil
}
