package entryfile

import (
	"bytes"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"go.etcd.io/raft/v3/raftpb"
)

const testDirect = 512 << 10 // what may go around the page cache

// synced returns a published file for records that are synced.
func synced(t testing.TB, fsys vfs.FS, dataBytes int64) *File {
	t.Helper()
	s := spec(dataBytes)
	s.Synced = true
	return made(t, fsys, s)
}

// made returns a published file.
func made(t testing.TB, fsys vfs.FS, s Spec) *File {
	t.Helper()
	f, err := Prepare(fsys, t.TempDir(), s, 0)
	must(t, err)
	must(t, f.Publish())
	t.Cleanup(func() {
		if !f.Closed() {
			_ = f.Release()
		}
	})
	return f
}

// put appends es, around the page cache if they are many, but does not sync them.
func put(t testing.TB, f *File, es []*raftpb.Entry, maxDirect int64) {
	t.Helper()
	_, size := f.Room(es)
	must(t, f.Reserve(size))
	must(t, f.Append(es, maxDirect))
}

// overwrites is a file system that looks at what is written to the data region of one file.
type overwrites struct {
	vfs.FS
	t    *testing.T
	file *File // nil: not yet
}

type overwritten struct {
	vfs.File
	o *overwrites
}

func (o *overwrites) Create(name string) (vfs.File, error) {
	f, err := o.FS.Create(name)
	return &overwritten{f, o}, err
}

func (f *overwritten) WriteAt(p []byte, off int64) (int, error) {
	f.o.check(p, off)
	return f.File.WriteAt(p, off)
}

func (f *overwritten) WriteDirect(p []byte, off int64) error {
	f.o.check(p, off)
	return f.File.WriteDirect(p, off)
}

// check sees to it that records that are there already are written as they are, and that no
// page is begun that is not written as a whole: the system would have to read it first.
func (o *overwrites) check(p []byte, off int64) {
	if o.file == nil || off < DataStart {
		return
	}
	if there := o.file.End() - off; there > 0 {
		mem := (*o.file.mem.Load()).Bytes()
		if there > int64(len(p)) || !bytes.Equal(mem[off:off+there], p[:there]) {
			o.t.Errorf("a write at %d changes records that are there", off)
		}
	}
	if last := (off + int64(len(p))) % page.Size; last != 0 && (off%page.Size == 0 || int64(len(p)) > page.Size) {
		o.t.Errorf("%d bytes are written at %d: the last page in part", len(p), off)
	}
}

// TestDirect: whatever way records take to the file, one Append after another, it reads as it
// was saved, at once and when it is opened again.
func TestDirect(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	counted := vfstest.New(vfs.OS(), nil)
	o := &overwrites{FS: counted, t: t}
	f := synced(t, o, 64<<20)
	o.file = f
	var want []*raftpb.Entry
	for range 150 {
		keep := len(want)
		if r.IntN(8) == 0 {
			keep -= r.IntN(min(keep+1, 20))
		}
		size := []int{0, 50, 1000, page.Size - RecordHeaderBytes, page.Size, 10_000, 40_000, 100_000}[r.IntN(8)]
		count := 1 + r.IntN(1+min(300, []int{2_000, 80_000, 700_000}[r.IntN(3)]/(size+1)))
		es := plain(uint64(keep)+1, uint64(keep+count)+1, size)
		put(t, f, es, []int64{0, testDirect}[r.IntN(2)])
		want = append(want[:keep:keep], es...)
		mem := (*f.mem.Load()).Bytes()
		if rest := mem[f.End():roundUp(f.End(), page.Size)]; len(bytes.Trim(rest, "\x00")) > 0 {
			t.Errorf("the page has %d bytes behind the records at %d", len(bytes.TrimRight(rest, "\x00")), f.End())
		}
		if r.IntN(4) > 0 {
			must(t, f.Sync())
		}
		lo := r.IntN(len(want))
		b := &Batch{MaxBytes: 1 << 20}
		_, err := f.Read(indexOf(f), uint64(lo)+1, uint64(len(want))+1, b)
		must(t, err)
		wantSame(t, b.Entries(), want[lo:lo+len(b.Entries())])
	}
	if n := counted.Count(vfstest.OpDirect); n < 20 {
		t.Errorf("%d writes went around the page cache", n)
	}
	wantEntries(t, f, want)
	must(t, f.Terminate())
	must(t, f.Seal())
	g := reopen(t, f)
	wantEntries(t, g, want)
	_, err := g.Check()
	must(t, err)
}

// TestDirectOrNot: only what is synced, and synced alone, goes around the page cache, and
// only if it is much, but not too much.
func TestDirectOrNot(t *testing.T) {
	const record = 1000 + RecordHeaderBytes + 8 // the data of an entry of plain, rounded up
	many := uint64(minDirect/record + 2)
	tests := map[string]struct {
		maxDirect int64
		first     []*raftpb.Entry // not synced before the rest
		rest      []*raftpb.Entry
		want      int
	}{
		"much":             {testDirect, nil, plain(1, 1+many, 1000), 1},
		"one large entry":  {testDirect, nil, plain(1, 2, 100_000), 1},
		"little":           {testDirect, nil, plain(1, 10, 1000), 0},
		"too much":         {minDirect, nil, plain(1, 1+2*many, 1000), 0},
		"nothing may":      {0, nil, plain(1, 1+many, 1000), 0},
		"behind another":   {testDirect, plain(1, 2, 1), plain(2, 2+many, 1000), 0},
		"behind many more": {testDirect, plain(1, 1+many, 1000), plain(1+many, 1+2*many, 1000), 1},
	}
	for name, test := range tests {
		fsys := vfstest.New(vfs.OS(), nil)
		f := synced(t, fsys, 4<<20)
		for _, es := range [][]*raftpb.Entry{test.first, test.rest} {
			if len(es) > 0 {
				put(t, f, es, test.maxDirect)
			}
		}
		if n := fsys.Count(vfstest.OpDirect); n != test.want {
			t.Errorf("%s: %d writes around the page cache, want %d", name, n, test.want)
		}
	}
	fsys := vfstest.New(vfs.OS(), nil)
	f := prepareOn(t, fsys, t.TempDir())
	put(t, f, plain(1, 1+many, 1000), testDirect)
	if n := fsys.Count(vfstest.OpDirect); n != 0 {
		t.Errorf("not synced: %d writes around the page cache", n)
	}
}

// TestDirectMemory: what goes around the page cache is never in memory that is not aligned.
func TestDirectMemory(t *testing.T) {
	f := synced(t, vfstest.New(vfs.OS(), nil), 4<<20)
	f.out = make([]byte, 1<<20)[8:8]
	if vfs.IsAligned(f.out) {
		t.Fatal("8 bytes behind a page begins another")
	}
	put(t, f, plain(1, 3, 40_000), testDirect)
	wantEntries(t, f, plain(1, 3, 40_000))
}

// TestReadDirect: pages that went around the cache are asked for before they are read, each
// once, but for those that are still being written to.
func TestReadDirect(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), nil)
	f := synced(t, fsys, 8<<20)
	read := func(lo, hi uint64) int {
		t.Helper()
		fsys.Reset()
		_, err := f.Read(indexOf(f), lo, hi, &Batch{MaxBytes: 1 << 30})
		must(t, err)
		return fsys.Count(vfstest.OpPopulate)
	}
	put(t, f, plain(1, 10, 50), testDirect)
	must(t, f.Sync())
	if n := read(1, 10); n != 0 {
		t.Errorf("%d times pages were asked for that are in the cache", n)
	}
	for lo := uint64(10); lo < 100; lo += 10 {
		put(t, f, plain(lo, lo+10, 10_000), testDirect)
		must(t, f.Sync())
	}
	if n := read(1, 80); n == 0 {
		t.Error("no pages were asked for")
	}
	if n := read(1, 70); n != 0 {
		t.Errorf("%d times pages were asked for again", n)
	}
	for range 2 {
		if n := read(99, 100); n == 0 {
			t.Error("the last pages were not asked for")
		}
	}
}

// TestContinueDirect: what was there when the file was opened again stays: the records in
// front of those that go around the page cache, and the slots in front of new ones.
func TestContinueDirect(t *testing.T) {
	old := plain(1, 1000, 77)
	f := synced(t, vfs.OS(), 4<<20)
	put(t, f, old, 0)
	must(t, f.Sync())
	must(t, f.SyncSlots())
	end := f.End()
	f = reopen(t, f)
	must(t, f.Continue(end, true))
	if f.Stale() {
		t.Fatal("the slots are damaged")
	}
	want := slices.Concat(old, plain(1000, 5000, 50))
	put(t, f, want[len(old):], testDirect)
	must(t, f.Terminate())
	must(t, f.Seal())
	f = reopen(t, f)
	wantEntries(t, f, want)
	if f.Healed() {
		t.Error("slots had to be rebuilt")
	}
}

// TestReadyDirect: a file whose records go around the page cache is made ready likewise, in
// front of them, and beside them.
func TestReadyDirect(t *testing.T) {
	f := synced(t, vfs.OS(), 32<<20)
	done := make(chan error)
	for lo := uint64(1); lo < 1000; lo += 10 {
		put(t, f, plain(lo, lo+10, 10_000), testDirect)
		must(t, f.Sync())
		go func() { done <- f.ReadyAhead(4 << 20) }()
		put(t, f, plain(lo+10, lo+20, 10_000), testDirect)
		must(t, <-done)
		must(t, f.Sync())
		lo += 10
	}
	if f.Ready() <= 0 {
		t.Errorf("%d bytes are ready", f.Ready())
	}
	last := f.Last()
	wantEntries(t, f, plain(1, last+1, 10_000))
	s, err := f.Scan()
	must(t, err)
	if s.End != f.End() || s.Index.Last() != last {
		t.Errorf("scanned up to %d and entry %d, want %d and %d", s.End, s.Index.Last(), f.End(), last)
	}
}

// TestWays: who writes to a file around the page cache waits for those that write through it,
// and the other way round, but not for those that write likewise.
func TestWays(t *testing.T) {
	var w ways
	for _, direct := range []bool{false, true} {
		w.begin(direct)
		w.begin(direct)
		other := make(chan bool)
		go func() {
			w.begin(!direct)
			close(other)
		}()
		w.end()
		for range 100 {
			runtime.Gosched()
		}
		select {
		case <-other:
			t.Errorf("direct: %t: both ways at once", direct)
		default:
		}
		w.end()
		<-other
		w.end()
	}
}

// TestOneWayAtATime: a Save and what makes the file ready never write different ways at once.
func TestOneWayAtATime(t *testing.T) {
	o := &oneWay{FS: vfs.OS(), t: t}
	f := synced(t, o, 32<<20)
	stop, done := make(chan bool), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := f.ReadyAhead(f.Ready() + 1); err != nil {
				<-stop
				done <- err
				return
			}
		}
	}()
	sizes := []int{100, 100, 40_000}
	for lo := uint64(1); lo < 200; lo++ {
		put(t, f, plain(lo, lo+1, sizes[lo%3]), testDirect)
		if lo%3 != 0 { // the next one shares the sync, and the page
			must(t, f.Sync())
		}
		if lo%3 == 2 { // the background goes around the cache, too
			must(t, f.SyncSlots())
		}
	}
	must(t, f.Sync())
	close(stop)
	must(t, <-done)
	wantEntries(t, f, slices.Collect(func(yield func(*raftpb.Entry) bool) {
		for i := uint64(1); i < 200; i++ {
			yield(plain(i, i+1, sizes[i%3])[0])
		}
	}))
	if o.through.Load() == 0 || o.around.Load() == 0 {
		t.Errorf("%d writes through the cache, %d around it", o.through.Load(), o.around.Load())
	}
}

// oneWay is a file system that looks at how a file is written to.
type oneWay struct {
	vfs.FS
	t               *testing.T
	now             [2]atomic.Int64 // writes under way through the cache, and around it
	through, around atomic.Int64    // writes so far
}

type oneWayFile struct {
	vfs.File
	o *oneWay
}

func (o *oneWay) Create(name string) (vfs.File, error) {
	f, err := o.FS.Create(name)
	return &oneWayFile{f, o}, err
}

func (o *oneWay) write(direct bool, off int64, write func() error) error {
	if off >= headerPage0 && off < DataStart { // while nobody else knows the file, or writes to it
		return write()
	}
	way, other, count := &o.now[0], &o.now[1], &o.through
	if direct {
		way, other, count = other, way, &o.around
	}
	count.Add(1)
	way.Add(1)
	defer way.Add(-1)
	for range 3 {
		if n := other.Load(); n != 0 {
			o.t.Errorf("direct: %t, at %d: %d writes the other way at the same time", direct, off, n)
		}
		runtime.Gosched()
	}
	return write()
}

func (f *oneWayFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.o.write(false, off, func() error { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

func (f *oneWayFile) WriteDirect(p []byte, off int64) error {
	return f.o.write(true, off, func() error { return f.File.WriteDirect(p, off) })
}

func (f *oneWayFile) WriteZeros(off, n, piece int64) error {
	return f.o.write(piece == vfs.Direct, off, func() error { return f.File.WriteZeros(off, n, piece) })
}

// through is a file system that knows no way around the page cache.
type through struct{ vfs.FS }

type throughFile struct{ vfs.File }

func (f through) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return throughFile{file}, err
}

func (throughFile) CanDirect() bool { return false }

// TestNoWayAround: where there is no way around the page cache, none is tried.
func TestNoWayAround(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), nil)
	f := synced(t, through{fsys}, 4<<20)
	put(t, f, plain(1, 10, 10_000), testDirect)
	must(t, f.Sync())
	if n := fsys.Count(vfstest.OpDirect); n != 0 {
		t.Errorf("%d writes around the page cache", n)
	}
	wantEntries(t, f, plain(1, 10, 10_000))
}

// asked is a file system that counts who asks for a way around the page cache.
type asked struct {
	vfs.FS
	times *int
}

type askedFile struct {
	vfs.File
	times *int
}

func (f asked) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return askedFile{file, f.times}, err
}

func (f asked) Open(name string, readOnly bool) (vfs.File, error) {
	file, err := f.FS.Open(name, readOnly)
	return askedFile{file, f.times}, err
}

func (f askedFile) CanDirect() bool {
	*f.times++
	return f.File.CanDirect()
}

// TestWayOpenedAhead: the way around the page cache is opened when a file is made that is
// likely to take it, and for no other.
func TestWayOpenedAhead(t *testing.T) {
	for _, direct := range []bool{false, true} {
		times, want := 0, 0
		if direct {
			want = 1
		}
		s, fsys, dir := spec(4<<20), asked{vfs.OS(), &times}, t.TempDir()
		s.Synced, s.Direct = true, direct
		f, err := Prepare(fsys, dir, s, 0)
		must(t, err)
		if times != want {
			t.Errorf("direct: %t: asked for %d times by Prepare, want %d", direct, times, want)
		}
		must(t, f.Publish())
		must(t, f.Unpublish())
		times = 0
		f, err = Reuse(fsys, dir, SpareName(f.Number()), s, 0)
		must(t, err)
		if times != want {
			t.Errorf("direct: %t: asked for %d times by Reuse, want %d", direct, times, want)
		}
		must(t, f.Release())
	}
}

// TestScanOfLongerFile: what somebody has added to a file, behind a hole, is not looked at.
func TestScanOfLongerFile(t *testing.T) {
	f := prepare(t, entries(1, 10, 1)...)
	end := f.End()
	file, err := os.OpenFile(f.Path(), os.O_WRONLY, 0)
	must(t, err)
	defer file.Close()
	_, err = file.WriteAt([]byte("more"), f.Size()+8<<20)
	must(t, err)
	f = reopen(t, f)
	s, err := f.Scan()
	must(t, err)
	if s.End != end || s.Index.Last() != 9 || s.Rest != 0 {
		t.Errorf("the records end at %d with entry %d, and %d bytes follow; want %d, 9 and 0", s.End, s.Index.Last(), s.Rest, end)
	}
}

// TestWritesOfAppend: the records of an Append are written with one call, whatever is synced; the
// page in which they begin is written as a whole if nothing stands there before them.
func TestWritesOfAppend(t *testing.T) {
	for _, synced := range []bool{true, false} {
		fsys := vfstest.New(vfs.OS(), nil)
		s := spec(4 << 20)
		s.Synced = synced
		f := made(t, fsys, s)
		var es []*raftpb.Entry
		for _, n := range []uint64{1, 1, 3, 10, 1, 1} {
			next := uint64(len(es) + 1)
			e := plain(next, next+n, 1000-RecordHeaderBytes)
			must(t, f.Reserve(f.recordBytes(e)))
			fsys.Reset()
			must(t, f.Append(e, 0))
			if es = append(es, e...); fsys.Count(vfstest.OpWrite) != 1 || fsys.Total() != 1 {
				t.Errorf("synced %t: %d entries behind %d take %d operations, %d writes; want one write",
					synced, n, next-1, fsys.Total(), fsys.Count(vfstest.OpWrite))
			}
		}
		must(t, f.Sync())
		wantEntries(t, f, es)
		g := reopen(t, f)
		r, err := g.Scan()
		must(t, err)
		g.Resume(r)
		wantEntries(t, g, es)
	}
}

// reservations is a file system that notes what new files have blocks made for.
type reservations struct {
	vfs.FS
	extents []Extent
}

type reservedFile struct {
	vfs.File
	r *reservations
}

func (r *reservations) Create(name string) (vfs.File, error) {
	f, err := r.FS.Create(name)
	return &reservedFile{f, r}, err
}

func (f *reservedFile) Reserve(off, n int64) error {
	f.r.extents = append(f.r.extents, Extent{off, off + n})
	return f.File.Reserve(off, n)
}

// TestNewFileHasBlocks: slots are written when there may be no room any more, so a new file has
// blocks for all of them, and together with the first of the data.
func TestNewFileHasBlocks(t *testing.T) {
	for _, synced := range []bool{true, false} {
		r := &reservations{FS: vfs.OS()}
		s := spec(4 << 20)
		s.Synced = synced
		f, err := Prepare(r, t.TempDir(), s, 0)
		must(t, err)
		f.Discard()
		if want := []Extent{{0, DataStart + dataStep}}; !slices.Equal(r.extents, want) {
			t.Errorf("synced %t: blocks for %v, want %v", synced, r.extents, want)
		}
	}
}
