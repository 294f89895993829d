package backup_test

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
)

// TestRestoreIntoVolume: the root of a file system.
func TestRestoreIntoVolume(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("none", mount, "tmpfs", 0, ""); err != nil {
		t.Skip("mounting tmpfs needs root: ", err)
	}
	defer func() { _ = syscall.Unmount(mount, syscall.MNT_DETACH) }()
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	_, err := backup.Restore(t.Context(), mount, nil, bytes.NewReader(b))
	must(t, err)
	onlyALog(t, mount)
}
