package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sample unpacks a member's directory that etcd wrote; want is what etcd reads.
func sample(t testing.TB, name string) (dir string, want string) {
	t.Helper()
	dir = t.TempDir()
	name = filepath.Join("testdata", name)
	golden.Unpack(t, name+".tar.gz", dir)
	return dir, golden.JSON(t, golden.ReadJSON[golden.Log](t, name+".json"))
}

// contents returns what l holds, or the error of reading it.
func contents(t testing.TB, l *Log) (string, error) {
	t.Helper()
	got := golden.Log{RaftID: l.RaftID, GroupID: l.GroupID, Checkpoint: l.Checkpoint}
	var es []*raftpb.Entry
	for e, err := range l.Entries {
		if err != nil {
			return "", err
		}
		es = append(es, e)
	}
	got.Set(l.HardState, l.Snapshot, l.First, es)
	return golden.JSON(t, got), nil
}

// TestSamples: what etcd reads from a directory, this package reads as well.
func TestSamples(t *testing.T) {
	names, err := filepath.Glob("testdata/*.tar.gz")
	must(t, err)
	if len(names) < 11 {
		t.Fatalf("%d samples", len(names))
	}
	for _, path := range names {
		name := strings.TrimSuffix(filepath.Base(path), ".tar.gz")
		t.Run(name, func(t *testing.T) {
			dir, want := sample(t, name)
			data := t.TempDir() // etcd's --data-dir, with the member in it
			must(t, os.Symlink(dir, filepath.Join(data, "member")))
			for _, src := range []string{dir, filepath.Join(dir, "wal"), data} {
				l, err := Open(src)
				must(t, err)
				if got, err := contents(t, l); err != nil || got != want {
					t.Errorf("%v, read\n%s\nwant\n%s", err, got, want)
				}
				if l.Count() != strings.Count(want, `"data"`)-1 {
					t.Errorf("%d entries", l.Count())
				}
				if torn := l.Torn != (Torn{}); torn != (name == "torn") {
					t.Errorf("torn: %+v", l.Torn)
				}
				if missing := l.MissingSnap != ""; missing != strings.HasSuffix(name, "-snap-file") {
					t.Errorf("missing: %q", l.MissingSnap)
				}
				if older := name == "older-snap-file" || name == "without-snap-file"; l.Older != older {
					t.Errorf("an older snapshot: %v", l.Older)
				}
			}
		})
	}
}

func TestCounts(t *testing.T) {
	for name, want := range map[string]struct{ leftOut, replaced int }{
		"small":       {0, 0},
		"replaced":    {0, 6 + 68 + 6}, // those from 25, from 23 and from 90 on
		"snapshot":    {65, 0},
		"from-leader": {30, 0},
	} {
		dir, _ := sample(t, name)
		l, err := Open(dir)
		must(t, err)
		if l.LeftOut != want.leftOut || l.Replaced != want.replaced {
			t.Errorf("%s: %d left out, %d replaced, want %+v", name, l.LeftOut, l.Replaced, want)
		}
	}
}

// maker writes a WAL of one file, record by record.
type maker struct {
	dir  string
	sum  uint32
	file []byte
}

func newMaker(t testing.TB) *maker {
	t.Helper()
	m := &maker{dir: t.TempDir()}
	must(t, errors.Join(os.Mkdir(filepath.Join(m.dir, "wal"), 0o700), os.Mkdir(filepath.Join(m.dir, "snap"), 0o700)))
	m.add(typeCRC, nil)
	m.add(typeMetadata, []byte{8, 3, 16, 4}) // node 3, cluster 4
	return m
}

// add adds a record.
func (m *maker) add(typ uint64, data []byte) *maker {
	r := record{data: data}
	m.sum = r.sum(m.sum)
	message := protowire.AppendVarint([]byte{8}, typ)
	message = protowire.AppendVarint(append(message, 16), uint64(m.sum))
	if data != nil {
		message = protowire.AppendBytes(append(message, 26), data)
	}
	length := uint64(len(message))
	if pad := -length & 7; pad > 0 {
		message = append(message, make([]byte, pad)...)
		length |= (0x80 | pad) << 56
	}
	m.file = append(binary.LittleEndian.AppendUint64(m.file, length), message...)
	return m
}

func (m *maker) addMessage(typ uint64, msg proto.Message) *maker {
	data, err := proto.Marshal(msg)
	if err != nil {
		panic(err)
	}
	return m.add(typ, data)
}

func (m *maker) entry(i, term uint64, data []byte) *maker {
	return m.addMessage(typeEntry, &raftpb.Entry{Index: &i, Term: &term, Data: data})
}

func (m *maker) state(term, commit uint64) *maker {
	return m.addMessage(typeState, &raftpb.HardState{Term: &term, Vote: new(uint64(3)), Commit: &commit})
}

func (m *maker) snapshot(i, term uint64) *maker {
	data := protowire.AppendVarint([]byte{8}, i)
	data = protowire.AppendVarint(append(data, 16), term)
	return m.add(typeSnapshot, append(data, 26, 2, 8, 3)) // voter 3
}

// write writes the file, with zeros behind it, and returns its path.
func (m *maker) write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(m.dir, "wal", "0000000000000000-0000000000000000.wal")
	must(t, os.WriteFile(path, append(m.file, make([]byte, 4096)...), 0o600))
	return path
}

// TestReplacedBySnapshot: a leader's snapshot that the log does not lead up to ends
// it, and entries behind an entry that is replaced end with it, though etcd itself
// would show them again.
func TestReplacedBySnapshot(t *testing.T) {
	for name, test := range map[string]struct {
		write       func(m *maker)
		first, last uint64
	}{
		"own":           {func(m *maker) { m.snapshot(2, 1).state(1, 2) }, 1, 4}, // its file is not there
		"of the leader": {func(m *maker) { m.snapshot(2, 5).state(5, 2) }, 3, 2},
		"goes on":       {func(m *maker) { m.snapshot(2, 5).state(5, 2).entry(3, 5, nil) }, 3, 3},
		"below":         {func(m *maker) { m.entry(2, 5, nil).snapshot(2, 5).state(5, 2) }, 1, 2},
		"not committed": {func(m *maker) { m.snapshot(2, 5) }, 1, 4},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			m.snapshot(0, 0)
			for i := range uint64(4) {
				m.entry(i+1, 1, []byte("x"))
			}
			test.write(m.state(1, 1))
			m.write(t)
			l, err := Open(m.dir)
			must(t, err)
			if _, err := contents(t, l); err != nil || l.First != test.first || l.Last != test.last {
				t.Errorf("%d to %d, %v; want %d to %d", l.First, l.Last, err, test.first, test.last)
			}
		})
	}
}

// TestDamage: what contradicts itself is refused, with its place.
func TestDamage(t *testing.T) {
	for name, test := range map[string]struct {
		write func(m *maker) // the last record is the damaged one
		says  string
	}{
		"index 0":             {func(m *maker) { m.entry(0, 1, nil) }, "no entry 0"},
		"term 0":              {func(m *maker) { m.entry(5, 0, nil) }, "of term 0"},
		"term falls":          {func(m *maker) { m.entry(5, 1, nil) }, "below 2"},
		"committed":           {func(m *maker) { m.entry(2, 2, nil) }, "committed already"},
		"entry type":          {func(m *maker) { m.add(typeEntry, []byte{8, 3, 16, 2, 24, 5}) }, "no entry type 3"},
		"other message":       {func(m *maker) { m.add(typeEntry, []byte{8, 0, 16, 2, 24, 5, 40, 1}) }, "belong to no field"},
		"no message":          {func(m *maker) { m.add(typeEntry, []byte{8}) }, "cannot be read"},
		"record type":         {func(m *maker) { m.add(9, nil) }, "no record type 9"},
		"metadata":            {func(m *maker) { m.add(typeMetadata, []byte{8, 5}) }, "not that in front"},
		"state: term":         {func(m *maker) { m.state(1, 3) }, "below 2 and 2"},
		"state: commit":       {func(m *maker) { m.state(3, 1) }, "below 2 and 2"},
		"state: beyond":       {func(m *maker) { m.state(3, 9) }, "the last entry is 4"},
		"snapshot":            {func(m *maker) { m.add(typeSnapshot, []byte{1}) }, "cannot be read"},
		"crc record":          {func(m *maker) { m.sum++; m.add(typeCRC, nil) }, "checksum of the record is wrong"},
		"crc record of bytes": {func(m *maker) { m.add(typeCRC, []byte("x")) }, "cannot be read"},
		"checksum":            {func(m *maker) { m.sum++; m.entry(5, 2, nil) }, "checksum of the record is wrong"},
		"gap":                 {func(m *maker) { m.entry(6, 2, nil) }, "from 1 on are missing"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			m.snapshot(0, 0)
			for i := range uint64(4) {
				m.entry(i+1, 2, []byte("x"))
			}
			m.state(2, 2)
			at := len(m.file)
			test.write(m)
			path := m.write(t)
			wantDamage(t, m.dir, path, int64(at), test.says)
		})
	}
}

func wantDamage(t *testing.T, dir, path string, at int64, says string) {
	t.Helper()
	_, err := Open(dir)
	if e := (*mmapwal.CorruptError)(nil); !errors.As(err, &e) || e.File != path || e.Offset != at || !strings.Contains(e.Reason, says) {
		t.Errorf("error %v, want %s, offset %d: %s", err, path, at, says)
	}
}

// TestTermsBehindSnapshot: they do not fall.
func TestTermsBehindSnapshot(t *testing.T) {
	m := newMaker(t)
	m.snapshot(10, 5).state(5, 10)
	at := len(m.file)
	path := m.entry(11, 4, nil).write(t)
	wantDamage(t, m.dir, path, int64(at), "that of the snapshot")
}

// TestFiles: files that are missing, short or have other names.
func TestFiles(t *testing.T) {
	dir, _ := sample(t, "rotated")
	names, err := filepath.Glob(filepath.Join(dir, "wal", "*.wal"))
	must(t, err)
	if len(names) < 3 {
		t.Fatalf("%d files", len(names))
	}
	restore := func(name string) func() {
		p, err := os.ReadFile(name)
		must(t, err)
		return func() { must(t, os.WriteFile(name, p, 0o600)) }
	}

	back := restore(names[1])
	must(t, os.Remove(names[1]))
	wantDamage(t, dir, names[2], 0, "is missing")
	must(t, os.WriteFile(names[1], make([]byte, 500), 0o600))
	wantDamage(t, dir, names[1], 0, "cannot be read")
	back()

	back = restore(names[0])
	must(t, os.Remove(names[0]))
	l, err := Open(dir)
	if e := (*mmapwal.CorruptError)(nil); !errors.As(err, &e) || e.File != names[1] || !strings.Contains(e.Reason, "from 1 on are missing") {
		t.Errorf("%v, %v", l, err)
	}
	back()

	back = restore(names[0])
	must(t, os.Truncate(names[0], 4000))
	if e := (*mmapwal.CorruptError)(nil); !errors.As(openErr(dir), &e) || e.File != names[0] && e.File != names[1] {
		t.Errorf("a file cut short: %v", openErr(dir))
	}
	back()

	last := names[len(names)-1]
	back = restore(last)
	for _, size := range []int{0, 7, 8, 500} { // it is named once its header is synced
		must(t, os.WriteFile(last, make([]byte, size), 0o600))
		wantDamage(t, dir, last, 0, "")
	}
	back()

	must(t, os.WriteFile(filepath.Join(dir, "wal", "0.tmp"), []byte("x"), 0o600)) // etcd makes files ahead
	must(t, openErr(dir))
	must(t, os.WriteFile(filepath.Join(dir, "wal", "1-2.wal"), []byte("x"), 0o600))
	if err := openErr(dir); !errors.Is(err, ErrNotEtcd) {
		t.Errorf("another name: %v", err)
	}
	if err := openErr(t.TempDir()); !errors.Is(err, ErrNotEtcd) {
		t.Errorf("nothing: %v", err)
	}
	if err := openErr(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func openErr(dir string) error {
	_, err := Open(dir)
	return err
}

// TestSnapFile: a snapshot file that the WAL names has to be whole.
func TestSnapFile(t *testing.T) {
	dir, want := sample(t, "snapshot")
	path := filepath.Join(dir, "snap", "0000000000000002-0000000000000041.snap")
	whole, err := os.ReadFile(path)
	must(t, err)
	for at := range whole {
		bad := bytes.Clone(whole)
		bad[at] ^= 1 << (at % 8)
		must(t, os.WriteFile(path, bad, 0o600))
		wantDamage(t, dir, path, 0, "")
		must(t, os.WriteFile(path, whole[:at], 0o600))
		wantDamage(t, dir, path, 0, "")
	}
	must(t, os.WriteFile(path, whole, 0o600))
	older := filepath.Join(dir, "snap", "0000000000000001-0000000000000014.snap")
	must(t, os.WriteFile(older, []byte("not needed"), 0o600))
	l, err := Open(dir)
	must(t, err)
	if got, err := contents(t, l); err != nil || got != want {
		t.Errorf("%v, read\n%s", err, got)
	}
	p, err := os.ReadFile(path)
	must(t, errors.Join(err, os.WriteFile(older, p, 0o600), os.Rename(older, path)))
	must(t, openErr(dir))

	// An old etcd's record has no conf state: then it cannot do without.
	m := newMaker(t)
	m.add(typeSnapshot, []byte{8, 7, 16, 1}).state(1, 7).write(t)
	if err := openErr(m.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without conf state: %v", err)
	}
}

// TestChangedSource: between two readings, something wrote to it.
func TestChangedSource(t *testing.T) {
	m := newMaker(t)
	m.snapshot(0, 0).entry(1, 1, []byte("one"))
	path := m.write(t)
	l, err := Open(m.dir)
	must(t, err)
	for _, p := range [][]byte{nil, bytes.Replace(m.file, []byte("one"), []byte("two"), 1), make([]byte, len(m.file))} {
		must(t, os.WriteFile(path, p, 0o600))
		if _, err := contents(t, l); !errors.Is(err, mmapwal.ErrCorrupt) {
			t.Errorf("error %v", err)
		}
	}
}

// TestHoles: what is a hole in a copy is not read, however large it is, and a record whose
// last bytes are zeros may end in one.
func TestHoles(t *testing.T) {
	const tib = 1 << 40
	for name, test := range map[string]struct {
		edit func(t *testing.T, path string, size int64)
		want error
	}{
		"a hole behind": {func(t *testing.T, path string, _ int64) { must(t, os.Truncate(path, tib)) }, nil},
		"zeros of a record in it": {func(t *testing.T, path string, size int64) {
			must(t, os.Truncate(path, size-512<<10)) // half of the last entry's data
			must(t, os.Truncate(path, tib))
		}, nil},
		"data far behind": {func(t *testing.T, path string, _ int64) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("x"), tib-1)
			must(t, errors.Join(err, f.Close()))
		}, ErrNotEtcd},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			m.snapshot(0, 0).state(1, 0).entry(1, 1, []byte("one")).entry(2, 1, make([]byte, 1<<20))
			path := m.write(t)
			want := contentsOfDir(t, m.dir)
			test.edit(t, path, int64(len(m.file)))
			if err := openErr(m.dir); !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if test.want == nil && contentsOfDir(t, m.dir) != want {
				t.Error("it reads otherwise")
			}
		})
	}
}

func contentsOfDir(t *testing.T, dir string) string {
	t.Helper()
	l, err := Open(dir)
	must(t, err)
	s, err := contents(t, l)
	must(t, err)
	return s
}
