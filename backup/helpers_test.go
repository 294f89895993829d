package backup_test

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

var quiet = slog.New(slog.DiscardHandler)

// key is a master key.
var key = bytes.Repeat([]byte{7}, 32)

// options returns options with small files and no output, edited.
func options(edits ...func(*mmapwal.Options)) *mmapwal.Options {
	o := &mmapwal.Options{Logger: quiet, FileDataSize: 1 << 20, Sync: mmapwal.NoSync, RetainEntries: 100}
	for _, edit := range edits {
		edit(o)
	}
	return o
}

func encrypted(o *mmapwal.Options) { o.Key = key }
func readOnly(o *mmapwal.Options)  { o.ReadOnly = true }

// open opens the log in dir, which never waits for the disk; it is closed when the
// test ends.
func open(t testing.TB, dir string, edits ...func(*mmapwal.Options)) *mmapwal.DiskStorage {
	t.Helper()
	h := host.OS()
	h.FS = noSync{h.FS}
	return openOn(t, h, dir, edits...)
}

func openOn(t testing.TB, h host.Host, dir string, edits ...func(*mmapwal.Options)) *mmapwal.DiskStorage {
	t.Helper()
	d, err := mmapwal.OpenOn(h, dir, options(edits...))
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// save saves the entries [from, to] of one term.
func save(t testing.TB, d *mmapwal.DiskStorage, from, to, term uint64, size int) {
	t.Helper()
	var es []*raftpb.Entry
	for i := from; i <= to; i++ {
		es = append(es, &raftpb.Entry{Index: &i, Term: &term, Data: oracle.Data(i, term, size)})
	}
	must(t, d.Save(&raftpb.HardState{Term: &term, Vote: new(uint64(1)), Commit: &to}, es, nil))
}

// content describes all that can be read from a log.
func content(t testing.TB, d *mmapwal.DiskStorage) string {
	t.Helper()
	s, err := oracle.Describe(d)
	must(t, err)
	return s
}

// full returns a full backup of d.
func full(t testing.TB, d *mmapwal.DiskStorage) ([]byte, mmapwal.Manifest) {
	t.Helper()
	var b bytes.Buffer
	m, err := d.Backup(t.Context(), &b)
	must(t, err)
	return b.Bytes(), m
}

// since returns an increment.
func since(t testing.TB, d *mmapwal.DiskStorage, parent mmapwal.Manifest) ([]byte, mmapwal.Manifest) {
	t.Helper()
	var b bytes.Buffer
	m, err := d.BackupSince(t.Context(), &b, parent)
	must(t, err)
	return b.Bytes(), m
}

func readers(backups [][]byte) (r []io.Reader) {
	for _, b := range backups {
		r = append(r, bytes.NewReader(b))
	}
	return r
}

// restored restores a chain and describes the log.
func restored(t testing.TB, opts *backup.RestoreOptions, backups ...[]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	_, err := backup.Restore(t.Context(), dir, unsyncedRestore(opts), readers(backups)...)
	must(t, err)
	var edits []func(*mmapwal.Options)
	if opts != nil {
		edits = append(edits, func(o *mmapwal.Options) { o.Key, o.KeyWrapper = opts.Key, opts.KeyWrapper })
	}
	d := open(t, dir, append(edits, readOnly)...)
	defer d.Close()
	if !d.Stats().Recovery.Clean {
		t.Error("the restored log was not closed cleanly")
	}
	return content(t, d)
}

// same fails the test unless two descriptions are equal.
func same(t testing.TB, what, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for k := range max(len(g), len(w)) {
		if k >= len(g) || k >= len(w) || g[k] != w[k] {
			t.Fatalf("%s: %d lines, want %d; the first %d are the same", what, len(g), len(w), k)
		}
	}
}

// nothingIn fails the test unless a directory is empty.
func nothingIn(t testing.TB, dir string) {
	t.Helper()
	infos, err := os.ReadDir(dir)
	must(t, err)
	for _, info := range infos {
		t.Errorf("%s was left", info.Name())
	}
}

// unsyncedRestore returns opts, with which no restore waits for the disk.
func unsyncedRestore(opts *backup.RestoreOptions) *backup.RestoreOptions {
	var o backup.RestoreOptions
	if opts != nil {
		o = *opts
	}
	o.SetFS(noSync{vfs.OS()})
	return &o
}

// noSync leaves the syncs out: for tests that restore often and cut no power.
type noSync struct{ vfs.FS }

func (noSync) SyncDir(string) error                   { return nil }
func (f noSync) OpenDir(string) (vfs.Dir, error)      { return vfs.FixedDir(f), nil }
func (noSync) MkdirAll(dir string) error              { return os.MkdirAll(dir, 0o700) }
func (f noSync) Create(name string) (vfs.File, error) { return unsynced(f.FS.Create(name)) }
func (f noSync) Open(name string, readOnly bool) (vfs.File, error) {
	return unsynced(f.FS.Open(name, readOnly))
}

func unsynced(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return noSyncFile{f}, nil
}

type noSyncFile struct{ vfs.File }

func (noSyncFile) Sync() error { return nil }

func (f noSyncFile) Map(size int64) (vfs.Mapping, error) {
	m, err := f.File.Map(size)
	return noSyncMapping{m}, err
}

type noSyncMapping struct{ vfs.Mapping }

func (noSyncMapping) Sync(int64, int64) error { return nil }
