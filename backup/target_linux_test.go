package backup_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
)

// TestRestoreForAService: what root restores into the directory of a service, the service can open;
// through a link, too.
func TestRestoreForAService(t *testing.T) {
	owner, group := os.Geteuid(), os.Getegid()
	if owner == 0 {
		owner, group = 12345, 54321
	}
	dir := t.TempDir()
	must(t, os.Chown(dir, owner, group))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	_, err := backup.Restore(t.Context(), link, nil, bytes.NewReader(b))
	must(t, err)
	infos, err := os.ReadDir(dir)
	must(t, err)
	for _, info := range infos {
		var stat syscall.Stat_t
		must(t, syscall.Stat(filepath.Join(dir, info.Name()), &stat))
		if int(stat.Uid) != owner || int(stat.Gid) != group || stat.Mode&0o777 != 0o600 {
			t.Errorf("%s: owner %d:%d, mode %o", info.Name(), stat.Uid, stat.Gid, stat.Mode&0o777)
		}
	}
}

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
