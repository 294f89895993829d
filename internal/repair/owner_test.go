package repair

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"context"

	"golang.org/x/sys/unix"
)

// TestOwner: what a repair writes anew has the mode that it had, and the owner, if root repairs.
func TestOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	put(t, dir, damaged(t))
	infos, err := os.ReadDir(dir)
	must(t, err)
	owner := os.Geteuid()
	if owner == 0 {
		owner = 12345
	}
	for _, info := range infos {
		must(t, os.Chown(filepath.Join(dir, info.Name()), owner, -1))
		must(t, os.Chmod(filepath.Join(dir, info.Name()), 0o640))
	}
	p, err := Rehearse(context.Background(), dir, Options{})
	must(t, err)
	must(t, p.Execute(context.Background(), filepath.Join(t.TempDir(), "backup")))
	must(t, p.Close())
	infos, err = os.ReadDir(dir)
	must(t, err)
	for _, info := range infos {
		var stat unix.Stat_t
		must(t, unix.Stat(filepath.Join(dir, info.Name()), &stat))
		if int(stat.Uid) != owner || fs.FileMode(stat.Mode&0o777) != 0o640 {
			t.Errorf("%s: owner %d, mode %o", info.Name(), stat.Uid, stat.Mode&0o777)
		}
	}
}
