package metafile

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
)

const snapLog = 77

var snapAt = Position{Index: 1234, Term: 5}

// writeSnapshot publishes a snapshot file and returns its directory and path.
func writeSnapshot(t testing.TB, data []byte) (dir, name string) {
	t.Helper()
	dir = t.TempDir()
	tmp, err := writeTemporary(vfs.OS(), dir, snapLog, snapAt, data)
	must(t, err)
	name = filepath.Join(dir, SnapshotName(snapAt))
	must(t, os.Rename(tmp, name))
	return dir, name
}

func TestSnapshotName(t *testing.T) {
	if got, want := SnapshotName(snapAt), "0000000000000005-00000000000004d2.snap"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 5000, 1 << 20} {
		data := make([]byte, size)
		seeded(t).Read(data)
		dir, _ := writeSnapshot(t, data)
		must(t, checkSnapshotFile(vfs.OS(), dir, snapLog, snapAt))
		got, err := readSnapshot(vfs.OS(), dir, snapLog, snapAt)
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes: read back differently", size)
		}
	}
}

func TestSnapshotEveryFlippedByte(t *testing.T) {
	dir, name := writeSnapshot(t, []byte("the data of a snapshot"))
	whole, err := os.ReadFile(name)
	must(t, err)
	for at := range whole {
		content := bytes.Clone(whole)
		content[at] ^= 0x10
		must(t, os.WriteFile(name, content, 0o600))
		_, err := readSnapshot(vfs.OS(), dir, snapLog, snapAt)
		wantCorrupt(t, err)
		err = checkSnapshotFile(vfs.OS(), dir, snapLog, snapAt)
		inData := at >= snapHeaderBytes || at >= snapAtChecksum && at < snapAtChecksum+4
		if (err == nil) != inData {
			t.Errorf("byte %d: CheckSnapshot: %v", at, err)
		}
	}
}

func TestSnapshotCutShort(t *testing.T) {
	dir, name := writeSnapshot(t, make([]byte, 100))
	whole, err := os.ReadFile(name)
	must(t, err)
	for _, size := range []int{0, 1, snapHeaderBytes - 1, snapHeaderBytes, len(whole) - 1, len(whole) + 1} {
		must(t, os.WriteFile(name, append(bytes.Clone(whole), 0)[:size], 0o600))
		_, err := readSnapshot(vfs.OS(), dir, snapLog, snapAt)
		wantCorrupt(t, err)
		wantCorrupt(t, checkSnapshotFile(vfs.OS(), dir, snapLog, snapAt))
	}
}

func TestSnapshotOfOthers(t *testing.T) {
	dir, name := writeSnapshot(t, []byte("data"))
	_, err := readSnapshot(vfs.OS(), dir, snapLog+1, snapAt)
	wantCorrupt(t, err)
	for _, p := range []Position{{1234, 6}, {1235, 5}} {
		must(t, os.Link(name, filepath.Join(dir, SnapshotName(p))))
		_, err := readSnapshot(vfs.OS(), dir, snapLog, p)
		wantCorrupt(t, err)
	}
	for _, err := range []error{
		func() error { _, err := readSnapshot(vfs.OS(), dir, snapLog, Position{1, 1}); return err }(),
		checkSnapshotFile(vfs.OS(), dir, snapLog, Position{1, 1}),
	} {
		wantCorrupt(t, err)
		wantErr(t, err, fs.ErrNotExist)
	}
	content, err := os.ReadFile(name)
	must(t, err)
	page.Order.PutUint32(content[8:], Version+1)
	must(t, os.WriteFile(name, content, 0o600))
	_, err = readSnapshot(vfs.OS(), dir, snapLog, snapAt)
	wantErr(t, err, ErrVersion)
}

// TestWriteSnapshotCuts: on an error nothing is left behind.
func TestWriteSnapshotCuts(t *testing.T) {
	for n := 1; ; n++ {
		dir := t.TempDir()
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(n, syscall.ENOSPC))
		_, err := writeTemporary(fsys, dir, snapLog, snapAt, []byte("data"))
		if err == nil {
			if n < 7 {
				t.Errorf("only %d operations failed", n-1)
			}
			return
		}
		wantErr(t, err, syscall.ENOSPC)
		if entries, _ := os.ReadDir(dir); len(entries) != 0 {
			t.Errorf("operation %d failed and left %v", n, entries)
		}
	}
}

func TestReadSnapshotFailures(t *testing.T) {
	dir, _ := writeSnapshot(t, []byte("data"))
	for n := 1; ; n++ {
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(n, syscall.EIO))
		_, err := readSnapshot(fsys, dir, snapLog, snapAt)
		if fsys.Count(vfstest.OpClose) > 0 && err == nil {
			if n < 5 {
				t.Errorf("only %d operations failed", n-1)
			}
			return
		}
		wantErr(t, err, syscall.EIO)
	}
}

// TestWriteSnapshotOverLeftover: what an earlier attempt left is no obstacle.
func TestWriteSnapshotOverLeftover(t *testing.T) {
	dir := t.TempDir()
	_, err := writeTemporary(vfs.OS(), dir, snapLog, snapAt, nil)
	must(t, err)
	_, err = writeTemporary(vfs.OS(), dir, snapLog, snapAt, nil)
	must(t, err)
}
