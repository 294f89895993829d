package metafile

import (
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func wantCorrupt(t testing.TB, err error) *corrupt.Error {
	t.Helper()
	var e *corrupt.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want a *corrupt.Error", err)
	}
	return e
}

// seeded returns a random source whose seed the test prints.
func seeded(t testing.TB) *rand.Rand {
	seed := time.Now().UnixNano()
	if n, err := strconv.ParseInt(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewSource(seed))
}

// metaOf returns a Meta that differs from those of all other n in most fields.
func metaOf(t testing.TB, n uint64) Meta {
	t.Helper()
	m := Meta{
		RaftID: n, GroupID: n + 1, Checkpoint: n + 2, LogID: 77, SyncPolicy: uint32(n % 3),
		Compacted: Position{n + 3, n + 4}, FirstFile: n + 5, Durable: End{n + 6, int64(n) * page.Size, 0},
		ClearedBelow: n + 7, ClearedEnd: End{n + 8, int64(n), 0}, HardState: HardState{Term: n, Vote: n + 1, Commit: n + 2, Stored: true},
	}
	must(t, m.SetSnapshot(snapshotOf(n, 20), false))
	return m
}

func snapshotOf(n uint64, dataBytes int) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data: make([]byte, dataBytes),
		Metadata: &raftpb.SnapshotMetadata{
			Index: proto.Uint64(n), Term: proto.Uint64(n + 1),
			ConfState: &raftpb.ConfState{Voters: []uint64{1, n}},
		},
	}
}

// wantMeta compares all but the sequence number.
func wantMeta(t testing.TB, got, want Meta) {
	t.Helper()
	got.sequence, want.sequence = 0, 0
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("meta\n%+v, want\n%+v", got, want)
	}
}

// created returns a directory with a wal.meta that holds metaOf(1).
func created(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, Create(vfs.OS(), dir, metaOf(t, 1), nil, nil))
	return dir
}

func open(t testing.TB, dir string) *File {
	t.Helper()
	f, err := Open(vfs.OS(), dir, false)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// read returns what the wal.meta in dir holds.
func read(t testing.TB, dir string) Meta {
	t.Helper()
	f, err := Open(vfs.OS(), dir, false)
	must(t, err)
	defer f.Close()
	return f.Meta()
}

func openErr(t testing.TB, dir string) error {
	t.Helper()
	f, err := Open(vfs.OS(), dir, false)
	if err == nil {
		_ = f.Close()
		t.Fatal("opened")
	}
	return err
}

// edit changes the bytes of the wal.meta in dir.
func edit(t testing.TB, dir string, change func(content []byte) []byte) {
	t.Helper()
	name := filepath.Join(dir, Name)
	content, err := os.ReadFile(name)
	must(t, err)
	must(t, os.WriteFile(name, change(content), 0o600))
}

// pageOf returns page i of content.
func pageOf(content []byte, i int) []byte { return content[i*page.Size : (i+1)*page.Size] }

// damage flips a bit of each of these pages.
func damage(t testing.TB, dir string, pages ...int) {
	t.Helper()
	edit(t, dir, func(content []byte) []byte {
		for _, i := range pages {
			pageOf(content, i)[atLogID] ^= 1
		}
		return content
	})
}

func reseal(p []byte) { page.Seal(p[:page.Order.Uint32(p[atUsed:])], atChecksum) }

// snapshotsOf returns a File for the snapshot files of a log.
func snapshotsOf(fsys vfs.FS, dir string, logID uint64) *File {
	return &File{fsys: fsys, dir: dir, logID: logID}
}

func writeTemporary(fsys vfs.FS, dir string, logID uint64, p Position, data []byte) (string, error) {
	name, _, err := snapshotsOf(fsys, dir, logID).WriteSnapshot(p, data)
	return name, err
}

func readSnapshot(fsys vfs.FS, dir string, logID uint64, p Position) ([]byte, error) {
	return snapshotsOf(fsys, dir, logID).ReadSnapshot(&Meta{LogID: logID, Snapshot: p})
}

func checkSnapshotFile(fsys vfs.FS, dir string, logID uint64, p Position) error {
	return snapshotsOf(fsys, dir, logID).CheckSnapshot(&Meta{LogID: logID, Snapshot: p})
}
