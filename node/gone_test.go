package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestADirectoryThatIsRemovedEndsTheNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.Mkdir(dir, 0o700))
	look, ended := make(chan time.Time), make(chan error, 1)
	w := watchDir(dir, look, func(err error) { ended <- err })
	defer w.stop()
	look <- time.Time{}
	look <- time.Time{} // taken after the first look was done
	require.Empty(t, ended)
	require.NoError(t, os.Rename(dir, dir+"-kept"))
	require.NoError(t, os.Mkdir(dir, 0o700)) // as where a volume was unmounted: a folder is there, and it is another one
	var err error
	select {
	case look <- time.Time{}:
		err = <-ended
	case err = <-ended: // the second look was late
	}
	require.ErrorIs(t, err, ErrDataGone)
	require.ErrorContains(t, err, dir)
	w.stop()
	w.stop()
}
