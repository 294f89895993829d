package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestRestoreIntoWorkingDirectory: a directory that is there is filled, whatever its name.
func TestRestoreIntoWorkingDirectory(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	t.Chdir(t.TempDir())
	_, err := backup.Restore(t.Context(), ".", unsyncedRestore(nil), bytes.NewReader(b))
	must(t, err)
	same(t, "restored", content(t, open(t, ".", readOnly)), content(t, d))
	onlyALog(t, ".")
}

// TestRestoreThroughLink: the log goes to where a link leads; one that leads nowhere is left.
func TestRestoreThroughLink(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	target, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(target, link))
	_, err := backup.Restore(t.Context(), link, unsyncedRestore(nil), bytes.NewReader(b))
	must(t, err)
	same(t, "restored", content(t, open(t, target, readOnly)), content(t, d))
	nowhere := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(filepath.Join(target, "missing"), nowhere))
	if _, err := backup.Restore(t.Context(), nowhere, nil, bytes.NewReader(b)); err == nil {
		t.Error("restored through a link that leads nowhere")
	}
	if to, err := os.Readlink(nowhere); err != nil || to != filepath.Join(target, "missing") {
		t.Errorf("the link leads to %q, %v", to, err)
	}
}

// TestRestoreKeepsTheDirectory: it stays the one it was, with its mode, and the lost+found of
// a new file system, even if the restore fails.
func TestRestoreKeepsTheDirectory(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	must(t, os.Chmod(dir, 0o2770|os.ModeSetgid))
	before, err := os.Stat(dir)
	must(t, err)
	for _, chain := range [][]byte{b[:len(b)/2], b} {
		_, err := backup.Restore(t.Context(), dir, unsyncedRestore(nil), bytes.NewReader(chain))
		if whole := len(chain) == len(b); whole != (err == nil) {
			t.Errorf("whole %v: error %v", whole, err)
		}
		after, err := os.Stat(dir)
		must(t, err)
		if !os.SameFile(before, after) || before.Mode() != after.Mode() {
			t.Errorf("the directory is another, or has mode %v, not %v", after.Mode(), before.Mode())
		}
		onlyALog(t, dir)
	}
	same(t, "restored", content(t, open(t, dir, readOnly)), content(t, d))
}

// TestRestoreIntoLeftovers: what an interrupted restore left is removed, and nothing else.
func TestRestoreIntoLeftovers(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	for name, test := range map[string]struct {
		files map[string]string // and what they hold
		works bool
	}{
		"begun":           {map[string]string{".restoring/lock": "", ".restoring/log/00001.wal": "x", ".restoring/incoming/wal.meta": "x"}, true},
		"moving":          {map[string]string{".restoring/published": "00001.wal\n00002.wal\n", "00001.wal": "x", ".restoring/log/wal.meta": "x"}, true},
		"a torn list":     {map[string]string{".restoring/published": "00001.wal\n0000", "00001.wal": "x"}, true},
		"mine":            {map[string]string{".restoring/published": "00001.wal\n", "00001.wal": "x", "00002.wal": "mine"}, false},
		"mine, by a list": {map[string]string{".restoring/published": "notes\n../notes\n", "notes": "mine"}, false},
		"complete":        {map[string]string{".restoring/published": "00001.wal\nwal.meta\n", "00001.wal": "x", "wal.meta": "x"}, false},
		"a file":          {map[string]string{".restoring": "x"}, false},
	} {
		dir := t.TempDir()
		for file, content := range test.files {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
		}
		if _, err := mmapwal.Open(dir, options()); err == nil {
			t.Errorf("%s: a log is made of it", name)
		}
		_, err := backup.Restore(t.Context(), dir, unsyncedRestore(nil), bytes.NewReader(b))
		if test.works {
			must(t, err)
			same(t, name, content(t, open(t, dir, readOnly)), content(t, d))
			onlyALog(t, dir)
			continue
		}
		if !errors.Is(err, backup.ErrExists) {
			t.Errorf("%s: error %v", name, err)
		}
		for file, content := range test.files {
			if is, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(is) != content {
				t.Errorf("%s: %s holds %q, %v", name, file, is, err)
			}
		}
	}
}

// TestTwoRestores: of two at a time one gets the directory.
func TestTwoRestores(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	dir := t.TempDir()
	r := readerFunc(func(p []byte) (int, error) {
		if _, err := backup.Restore(t.Context(), dir, unsyncedRestore(nil), bytes.NewReader(b)); !errors.Is(err, backup.ErrExists) {
			t.Errorf("the second one: %v", err)
		}
		return 0, errors.New("enough")
	})
	if _, err := backup.Restore(t.Context(), dir, unsyncedRestore(nil), r); err == nil {
		t.Error("restored from nothing")
	}
	nothingIn(t, dir)
}

// TestRestoreCut: the power fails at every step. The next restore works, or the log is there,
// all of it.
func TestRestoreCut(t *testing.T) {
	d := open(t, t.TempDir(), encrypted)
	save(t, d, 1, 3, 1, 500_000) // two files
	b, m := full(t, d)
	want := content(t, d)
	restore := func(disk *simdisk.FS) error {
		o := keyed(m)
		o.SetFS(disk)
		_, err := backup.Restore(context.Background(), "/log", o, bytes.NewReader(b))
		return err
	}
	check := func(what string, disk *simdisk.FS) {
		t.Helper()
		h := host.OS()
		h.FS = disk
		same(t, what, content(t, openOn(t, h, "/log", encrypted)), want)
	}
	whole := simdisk.New()
	must(t, restore(whole))
	complete := 0
	for cut := 1; cut <= whole.Steps(); cut++ {
		if cut > 10 && cut < whole.Steps()-20 && cut%32 > 0 {
			continue // a step of the engine, cut elsewhere
		}
		disk := simdisk.New()
		must(t, disk.MkdirAll("/log"))
		disk.CutAt(cut)
		if restore(disk) == nil && cut < whole.Steps()-5 {
			t.Fatalf("cut at step %d: restored", cut)
		}
		seeds := uint64(1)
		if left := whole.Steps() - cut; left >= 4 && left <= 9 { // the files get their names
			seeds = 30
		}
		for seed := range seeds {
			what := fmt.Sprintf("cut at step %d, seed %d", cut, seed)
			image := disk.Crash(rand.New(rand.NewPCG(seed, uint64(cut))))
			_, err := image.Open("/log/wal.meta", true)
			if err == nil {
				complete++
			} else if err := restore(image); err != nil {
				t.Fatalf("%s: once more: %v", what, err)
			}
			check(what, image)
		}
	}
	if complete == 0 {
		t.Error("the log was never complete")
	}
}
