package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody runs f as a user who may read only what everybody may. Not for what f runs in
// the background.
func asNobody(f func()) {
	if os.Geteuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, _ = unix.SetfsuidRetUid(65534) // of this thread alone; it fails with no error
	defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	f()
}

// TestPermission: a file that may not be read is no damage, and nothing to wipe a node for.
func TestPermission(t *testing.T) {
	for _, name := range []string{"wal.meta", "00001.wal", "00002.wal"} {
		dir := closedLog(t, nil)
		letIn(t, dir, 0o755)
		for _, n := range []string{"wal.meta", "00001.wal", "00002.wal"} {
			must(t, os.Chmod(filepath.Join(dir, n), 0o644))
		}
		must(t, os.Chmod(filepath.Join(dir, name), 0))
		for _, args := range [][]string{{"verify", dir}, {"info", dir}, {"dump", dir}, {"map", dir}, {"repair", "--dry-run", dir}} {
			var code int
			var out, errs string
			asNobody(func() { code, out, errs = execute(args...) })
			if code != exitNoLook || !strings.Contains(errs, "permission denied") || strings.Contains(strings.ToLower(out+errs), "damage") ||
				strings.Contains(out+errs, "anew") {
				t.Errorf("%v without %s: exit code %d:\n%s%s", args[0], name, code, out, errs)
			}
		}
	}
}

// TestDryRunOnlyReads: who may only read a log may rehearse a repair.
func TestDryRunOnlyReads(t *testing.T) {
	dir := closedLog(t, nil)
	flipByte(t, dir, "00001.wal", recordOf(t, dir, 6)+40)
	letIn(t, dir, 0o555)
	for _, n := range []string{"wal.meta", "00001.wal", "00002.wal"} {
		must(t, os.Chmod(filepath.Join(dir, n), 0o444))
	}
	defer func() { must(t, os.Chmod(dir, 0o755)) }()
	asNobody(func() {
		if code, out, errs := execute("repair", "--dry-run", dir); code != exitFailed || !strings.Contains(out, "lost: 6-20") {
			t.Errorf("exit code %d:\n%s%s", code, out, errs)
		}
	})
}

// letIn gives a directory its mode, and lets everybody through those above it.
func letIn(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	must(t, os.Chmod(dir, mode))
	for up := filepath.Dir(dir); up != filepath.Clean(os.TempDir()) && up != "/"; up = filepath.Dir(up) {
		must(t, os.Chmod(up, 0o755))
	}
}
