package compat

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// masterKey is that of all encrypted logs, oldKey of those that changed it.
var (
	masterKey = []byte("golden key, golden key, golden !")
	oldKey    = []byte("the key before that, 32 bytes...")
)

// expected stands as JSON beside each archive.
type expected struct {
	golden.Log
	Clean     bool `json:"clean"`
	Encrypted bool `json:"encrypted"`
}

// writer writes a log.
type writer struct {
	t    *testing.T
	dir  string
	opts mmapwal.Options
	host host.Host
	*mmapwal.DiskStorage

	held bool     // nothing is done in the background
	late []func() // what was not done for that
}

func newWriter(t *testing.T, name string, key []byte) *writer {
	t.Helper()
	var seed [32]byte
	copy(seed[:], name)
	w := &writer{
		t: t, dir: t.TempDir(), opts: mmapwal.Options{Key: key, FileDataSize: 1 << 20, Logger: slog.New(slog.DiscardHandler)},
	}
	w.host = host.Host{FS: host.OS().FS, Random: rand.NewChaCha8(seed), Go: w.background}
	w.open()
	return w
}

func (w *writer) open() {
	w.t.Helper()
	var err error
	w.DiskStorage, err = mmapwal.OpenOn(w.host, w.dir, &w.opts)
	must(w.t, err)
}

// background does f at once, so that all goes the same way each time.
func (w *writer) background(f func()) {
	if w.held {
		w.late = append(w.late, f)
		return
	}
	f()
}

// close closes the log.
func (w *writer) close() {
	w.t.Helper()
	w.held = false
	for ; len(w.late) > 0; w.late = w.late[1:] {
		w.late[0]()
	}
	must(w.t, w.Close())
}

// kill ends the process that has the log open, and starts another one.
func (w *writer) kill() {
	w.t.Helper()
	left := w.image()
	w.close()
	w.dir = left
	w.open()
}

// restart closes the log and opens it again.
func (w *writer) restart() {
	w.t.Helper()
	w.close()
	w.open()
}

// image returns a copy of the directory, as it is if the process is killed now.
func (w *writer) image() string {
	w.t.Helper()
	dir := w.t.TempDir()
	must(w.t, os.CopyFS(dir, os.DirFS(w.dir)))
	return dir
}

// tear takes away the end of what was written last.
func tear(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+entryfile.Suffix))
	must(t, err)
	name := names[len(names)-1]
	p, err := os.ReadFile(name)
	must(t, err)
	used := len(bytes.TrimRight(p, "\x00"))
	clear(p[used-8:])
	must(t, os.WriteFile(name, p, 0o600))
}

// save saves the entries from first to last, with a hard state that commits all in
// front of them.
func (w *writer) save(first, last, term uint64) {
	w.t.Helper()
	var es []*raftpb.Entry
	for i := first; i <= last; i++ {
		es = append(es, entry(i, term))
	}
	h := &raftpb.HardState{Term: &term, Vote: new(uint64(2)), Commit: new(first - 1)}
	must(w.t, w.Save(h, es, nil))
}

// fill saves large entries, one by one.
func (w *writer) fill(first, last uint64) {
	w.t.Helper()
	for i := first; i <= last; i++ {
		e := entry(i, 1)
		e.Data = bytes.Repeat([]byte{byte(i)}, 100_000)
		must(w.t, w.Save(nil, []*raftpb.Entry{e}, nil))
	}
}

// entry returns an entry: some are conf changes, or without data or type.
func entry(i, term uint64) *raftpb.Entry {
	e := &raftpb.Entry{Index: &i, Term: &term, Type: raftpb.EntryNormal.Enum(), Data: fmt.Appendf(nil, "entry %d of term %d", i, term)}
	switch i % 10 {
	case 3:
		e.Type = nil
	case 4:
		e.Data = nil
	case 6:
		e.Data = []byte{}
	case 7:
		e.Type, e.Data = raftpb.EntryConfChange.Enum(), message(&raftpb.ConfChange{NodeId: &i})
	case 8:
		e.Type, e.Data = raftpb.EntryConfChangeV2.Enum(), message(&raftpb.ConfChangeV2{Context: []byte("context")})
	}
	return e
}

func message(m proto.Message) []byte {
	p, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return p
}

func confState() *raftpb.ConfState {
	return &raftpb.ConfState{
		Voters: []uint64{1, 2, 3}, Learners: []uint64{4}, VotersOutgoing: []uint64{1, 2, 5}, LearnersNext: []uint64{5}, AutoLeave: new(true),
	}
}

func (w *writer) numbers() {
	w.t.Helper()
	for k, info := range []mmapwal.MetaInfo{mmapwal.RaftId, mmapwal.GroupId, mmapwal.CheckpointIndex} {
		must(w.t, w.SetUint(info, uint64(k)+7))
	}
}

// history makes a log.
type history struct {
	write func(w *writer)
	torn  bool // the last entry of the unclean one is torn

	plainOnly, encryptedOnly bool
}

// histories are those of all logs. Most are there twice: plain, and encrypted.
var histories = map[string]history{
	"empty": {write: func(*writer) {}},
	"small": {write: func(w *writer) {
		w.numbers()
		w.save(1, 30, 1)
		w.save(31, 40, 2)
	}},
	"inline-snapshot": {write: func(w *writer) {
		w.numbers()
		w.opts.RetainEntries = 5
		w.restart()
		w.save(1, 20, 1)
		w.save(21, 40, 2)
		must(w.t, w.CreateSnapshot(19, confState(), []byte("state machine")))
		w.save(41, 42, 3)
	}},
	"file-snapshot": {write: func(w *writer) {
		w.save(1, 20, 1)
		must(w.t, w.CreateSnapshot(10, confState(), []byte("in wal.meta")))
		must(w.t, w.CreateSnapshot(15, confState(), bytes.Repeat([]byte("state machine. "), 300)))
		w.save(21, 25, 2)
	}},
	"leader-snapshot": {write: func(w *writer) { // the log is beyond its own end then
		w.save(1, 20, 1)
		must(w.t, w.Save(nil, nil, &raftpb.Snapshot{
			Data: []byte("of the leader"), Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(500)), Term: new(uint64(4)), ConfState: confState()},
		}))
		w.save(501, 510, 4)
	}},
	"replaced": {write: func(w *writer) { // suffixes: in one file, and over several
		w.save(1, 30, 1)
		w.save(25, 30, 2)
		w.kill()
		w.save(31, 60, 2)
		w.kill()
		w.save(61, 70, 2)
		w.save(20, 65, 3)
		w.save(60, 62, 4)
	}},
	"cleared": {write: func(w *writer) { // with entries that were written anew since
		w.opts.RetainEntries = 40
		w.restart()
		w.save(1, 30, 1)
		w.kill()
		w.save(31, 60, 1)
		w.kill()
		w.save(61, 70, 1)
		must(w.t, w.CreateSnapshot(49, confState(), nil))
		must(w.t, w.TruncateEntriesUntil(50))
		w.save(50, 75, 2)
	}},
	"punched": {write: func(w *writer) { // cleared, and the blocks given back
		w.opts.RetainEntries = 20
		w.restart()
		for i := range uint64(12) {
			e := entry(i+1, 1)
			e.Data = bytes.Repeat([]byte{byte(i)}, 10_000)
			must(w.t, w.Save(nil, []*raftpb.Entry{e}, nil))
		}
		w.kill()
		w.save(13, 20, 2)
		must(w.t, w.CreateSnapshot(11, confState(), nil))
		must(w.t, w.TruncateEntriesUntil(12))
	}},
	"sealed": {write: func(w *writer) { // many files, the last one without an entry
		for i := range uint64(5) {
			w.save(10*i+1, 10*i+10, i+1)
			w.kill()
		}
		must(w.t, w.CreateSnapshot(15, confState(), nil))
	}},
	"filled": {plainOnly: true, write: func(w *writer) { // files that were full
		w.fill(1, 25)
		must(w.t, w.CreateSnapshot(2, confState(), nil))
	}},
	"unsealed": {plainOnly: true, write: func(w *writer) { // such as are not sealed yet
		w.fill(1, 15)
		w.held = true
		w.fill(16, 35)
	}},
	"reused": {plainOnly: true, write: func(w *writer) { // a spare file, and one that was made of another
		w.fill(1, 45)
		must(w.t, w.CreateSnapshot(35, confState(), nil))
		w.fill(46, 52)
	}},
	"torn": {torn: true, write: func(w *writer) {
		w.opts.Sync = mmapwal.NoSync
		w.restart()
		w.save(1, 10, 1)
		must(w.t, w.Sync())
		w.save(11, 15, 1)
	}},
	"other-key": {encryptedOnly: true, write: func(w *writer) { // the master key was changed
		w.save(1, 20, 1)
		must(w.t, w.CreateSnapshot(10, confState(), bytes.Repeat([]byte("state machine. "), 300)))
		must(w.t, w.RotateKey(oldKey))
		w.save(21, 30, 2)
		must(w.t, w.RotateKey(masterKey))
		w.save(31, 40, 2)
	}},
	"late-key": {encryptedOnly: true, write: func(w *writer) { // it was not encrypted at first
		must(w.t, w.Close())
		w.dir, w.opts.Key = w.t.TempDir(), nil
		w.open()
		w.save(1, 20, 1)
		must(w.t, w.CreateSnapshot(10, confState(), bytes.Repeat([]byte("state machine. "), 300)))
		w.opts.Key = masterKey
		w.restart()
		w.save(21, 40, 2)
	}},
}

// writeAll writes all logs into dir.
func writeAll(t *testing.T, dir string) {
	t.Helper()
	for name, h := range histories {
		if !h.encryptedOnly {
			write(t, dir, name+".plain", h, nil)
		}
		if !h.plainOnly {
			write(t, dir, name+".encrypted", h, masterKey)
		}
	}
}

// write writes a log twice: as it is when the process is killed, and closed.
func write(t *testing.T, dir, name string, h history, key []byte) {
	t.Helper()
	w := newWriter(t, name, key)
	h.write(w)
	want := &expected{Log: *contents(t, w.DiskStorage), Encrypted: key != nil}
	killed := w.image()
	w.close()
	want.Clean = true
	store(t, dir, name+".clean", w.dir, want)

	want.Clean = false
	if h.torn {
		tear(t, killed)
		want.Entries = want.Entries[:len(want.Entries)-1]
	}
	store(t, dir, name+".unclean", killed, want)
}

func store(t *testing.T, dir, name, log string, want *expected) {
	t.Helper()
	if update { // it takes its time
		golden.Pack(t, filepath.Join(dir, name+".tar.gz"), log)
	}
	must(t, os.WriteFile(filepath.Join(dir, name+".json"), []byte(golden.JSON(t, want)), 0o644))
}

// contents returns what an open log holds.
func contents(t *testing.T, wal *mmapwal.DiskStorage) *golden.Log {
	t.Helper()
	h, err := wal.HardState()
	must(t, err)
	snap, err := wal.Snapshot()
	must(t, err)
	first, err := wal.FirstIndex()
	must(t, err)
	last, err := wal.LastIndex()
	must(t, err)
	l := &golden.Log{
		RaftID: wal.Uint(mmapwal.RaftId), GroupID: wal.Uint(mmapwal.GroupId), Checkpoint: wal.Uint(mmapwal.CheckpointIndex),
	}
	var es []*raftpb.Entry
	if last >= first {
		es, err = oracle.Entries(wal, first, last+1)
		must(t, err)
	}
	l.Set(h, snap, first, es)
	for k, e := range l.Entries { // Term has another way than Entries
		if term, err := wal.Term(first + uint64(k)); err != nil || term != e.Term {
			t.Errorf("entry %d: term %d, %v, want %d", first+uint64(k), term, err, e.Term)
		}
	}
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
