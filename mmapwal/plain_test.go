package mmapwal_test

import (
	"bytes"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// testPlain is what was stored before the log was encrypted.
var testPlain = []byte("stored before encryption was turned on; ")

// testPlainEntries returns entries whose data is made of testPlain.
func testPlainEntries(from, to, term uint64, size int) []*raftpb.Entry {
	es := testLogEntries(from, to, term, 0)
	for _, e := range es {
		e.Data = bytes.Repeat(testPlain, size/len(testPlain)+1)
	}
	return es
}

// testPlainIn returns the names of the files of dir that hold testPlain.
func testPlainIn(t testing.TB, dir string) (names []string) {
	t.Helper()
	infos, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		content, err := os.ReadFile(filepath.Join(dir, info.Name()))
		if os.IsNotExist(err) {
			continue // removed in the background
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, testPlain) {
			names = append(names, info.Name())
		}
	}
	return names
}

// testPlainCounted: if Stats says that nothing is in clear, nothing is.
func testPlainCounted(t testing.TB, d *mmapwal.DiskStorage, dir string) (counted int) {
	t.Helper()
	s := d.Stats() // first: files are removed meanwhile
	if names := testPlainIn(t, dir); len(names) > s.PlainFiles {
		t.Fatalf("%d files hold plaintext, PlainFiles is %d: %v", len(names), s.PlainFiles, names)
	}
	return s.PlainFiles
}

// testPlainSpares makes a log that was closed, with spare files that hold plaintext.
func testPlainSpares(t testing.TB, dir string) (last uint64) {
	t.Helper()
	d := testLogOpen(t, dir)
	for last < 40 {
		testLogSave(t, d, testLogHard(1, 1, last+10), testPlainEntries(last+1, last+10, 1, 100_000))
		last += 10
		d.WaitForBackground()
		if err := d.CreateSnapshot(last, testLogConf(1), testPlain); err != nil {
			t.Fatal(err)
		}
		d.WaitForBackground()
	}
	testLogClose(t, d)
	if spares, _ := filepath.Glob(filepath.Join(dir, "*.spare")); len(spares) == 0 {
		t.Fatal("there is no spare file")
	}
	return last
}

// TestPlainSpares: a file that was not encrypted is not used again by an encrypted log, nor
// kept for that; as long as it is there it is counted.
func TestPlainSpares(t *testing.T) {
	dir := t.TempDir()
	last := testPlainSpares(t, dir)
	failed := false
	remove := vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
		if op == vfstest.OpRemove && !failed {
			failed = true
			return vfstest.Error(op, name, syscall.EIO)
		}
		return nil
	})
	for run := range 3 {
		d := testLogOpen(t, dir, testLogEncrypted, testLogOn(remove))
		d.WaitForBackground()
		counted := testPlainCounted(t, d, dir)
		switch {
		case run == 0 && counted == 0:
			t.Error("a spare file that could not be removed is not counted")
		case run == 1 && counted != 1:
			t.Errorf("%d files counted, want the one of the entries", counted)
		}
		for range 3 {
			testLogSave(t, d, testLogHard(1, 1, last+10), testLogEntries(last+1, last+10, 1, 10_000))
			last += 10
			testPlainCounted(t, d, dir)
		}
		if run == 1 {
			if err := d.CreateSnapshot(last, testLogConf(1), nil); err != nil {
				t.Fatal(err)
			}
			d.WaitForBackground()
			if n := d.Stats().PlainFiles; n != 0 {
				t.Errorf("%d files counted, want none", n)
			}
		}
		testPlainCounted(t, d, dir)
		testLogClose(t, d)
	}
	if names := testPlainIn(t, dir); len(names) > 0 {
		t.Errorf("plaintext in %v", names)
	}
}

// TestPlainSetAside: what KeepValidPrefix put aside before the log was encrypted, or while
// it became so, is counted until somebody removes it; so are superseded files.
func TestPlainSetAside(t *testing.T) {
	for name, during := range map[string]bool{"before": false, "during": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := testLogOpen(t, dir)
			testLogSave(t, d, testLogHard(1, 1, 1), testPlainEntries(1, 30, 1, 100_000))
			testLogSave(t, d, testLogHard(2, 1, 1), testPlainEntries(5, 6, 2, 100_000))
			testLogClose(t, d)
			testLogFlip(t, filepath.Join(dir, "00002.wal"), 3<<19)
			edits := []func(*mmapwal.Options){testLogKeepPrefix}
			if during {
				edits = append(edits, testLogEncrypted)
			}
			d = testLogOpen(t, dir, edits...)
			if len(d.Stats().Recovery.SetAside) == 0 {
				t.Fatal("nothing was set aside")
			}
			testLogClose(t, d)
			d = testLogOpen(t, dir, testLogEncrypted)
			d.WaitForBackground()
			testPlainCounted(t, d, dir)
			last, _ := d.LastIndex()
			testLogSave(t, d, testLogHard(2, 1, last+1), testLogEntries(last+1, last+1, 2, 10))
			if err := d.CreateSnapshot(last+1, testLogConf(1), nil); err != nil {
				t.Fatal(err)
			}
			d.WaitForBackground()
			aside := testPlainCounted(t, d, dir)
			if names := testPlainIn(t, dir); len(names) == 0 || len(names) != aside {
				t.Errorf("PlainFiles is %d, plaintext is in %v", aside, names)
			}
			testLogClose(t, d)
			d = testLogOpen(t, dir, testLogEncrypted, testLogReadOnly)
			if n := testPlainCounted(t, d, dir); n != aside {
				t.Errorf("a reader counts %d, want %d", n, aside)
			}
		})
	}
}

// TestPlainPages: no page of wal.meta goes on holding what was there before, wherever the
// power failed while encryption was turned on, once the log is open again.
func TestPlainPages(t *testing.T) {
	for cut, whole := 1, false; !whole; cut++ {
		disk := testPlainDisk(t)
		disk.CutAt(cut)
		d, err := mmapwal.Open("/log", testLogOptions(testLogOn(disk), testLogEncrypted))
		if err == nil {
			whole = d.Close() == nil
		}
		for seed := range uint64(4) {
			image := disk.Crash(mrand.New(mrand.NewPCG(seed, uint64(cut))))
			d := testLogOpen(t, "/log", testLogOn(image), testLogEncrypted)
			f, err := image.Open("/log/wal.meta", true)
			if err != nil {
				t.Fatal(err)
			}
			content := make([]byte, 4*4096)
			if _, err := f.ReadAt(content, 0); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(content, testPlain) {
				t.Fatalf("cut %d, seed %d: wal.meta holds plaintext", cut, seed)
			}
			testLogClose(t, d)
		}
	}
}

// testPlainDisk holds a log that was closed, with testPlain in every page of wal.meta.
func testPlainDisk(t *testing.T) *simdisk.FS {
	disk := simdisk.New()
	d := testLogOpen(t, "/log", testLogOn(disk))
	testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 5, 1, 10))
	for i := uint64(2); i <= 5; i++ {
		if err := d.CreateSnapshot(i, testLogConf(1), testPlain); err != nil {
			t.Fatal(err)
		}
		testLogSave(t, d, testLogHard(1, 1, i), nil) // only a commit index: page 2 or 3
	}
	testLogClose(t, d)
	return disk
}

// TestPlaintextIsCounted: random histories, in which encryption is turned on.
func TestPlaintextIsCounted(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			testPlainHistory(t, mrand.New(mrand.NewPCG(seed, 0)))
		})
	}
}

func testPlainHistory(t *testing.T, random *mrand.Rand) {
	dir := t.TempDir()
	fsys := func(o *mmapwal.Options) { o.SetFS(testLogFastFS{vfs.OS()}) }
	d := testLogOpen(t, dir, fsys)
	term, encrypted := uint64(1), false
	for range 60 {
		first, _ := d.FirstIndex()
		last, _ := d.LastIndex()
		snapshot := d.Uint(mmapwal.SnapshotIndex)
		switch n := random.IntN(10); {
		case n < 5:
			if random.IntN(3) == 0 && last > snapshot {
				last, term = snapshot+random.Uint64N(last-snapshot), term+1
			}
			es := testLogEntries(last+1, last+4, term, 150_000)
			if !encrypted {
				es = testPlainEntries(last+1, last+4, term, 150_000)
			}
			testLogSave(t, d, testLogHard(term, 1, last), es)
		case n < 8 && last > max(snapshot, first):
			data := bytes.Repeat([]byte("encrypted"), 300*random.IntN(2))
			if !encrypted {
				data = bytes.Repeat(testPlain, 1+100*random.IntN(2))
			}
			if err := d.CreateSnapshot(snapshot+1+random.Uint64N(last-snapshot), testLogConf(1), data); err != nil {
				t.Fatal(err)
			}
		case n == 8:
			d.WaitForBackground()
			dir = testLogCopyDir(t, dir) // it was killed
			testLogClose(t, d)
			d = testLogOpen(t, dir, testPlainEdits(encrypted, fsys)...)
		case n == 9:
			testLogClose(t, d)
			encrypted = encrypted || random.IntN(2) == 0
			d = testLogOpen(t, dir, testPlainEdits(encrypted, fsys)...)
		}
		if encrypted {
			testPlainCounted(t, d, dir)
		}
	}
}

func testPlainEdits(encrypted bool, fsys func(*mmapwal.Options)) []func(*mmapwal.Options) {
	if encrypted {
		return []func(*mmapwal.Options){fsys, testLogEncrypted}
	}
	return []func(*mmapwal.Options){fsys}
}
