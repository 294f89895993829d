package damage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// variant is a log that is damaged.
type variant struct {
	name string
	Moment
	log *Log
	// The last Save of a log is not vouched for if wal.meta is of the time before.
	vouched uint64 // last entry before what is not; 0: all are vouched for
	step    int64  // of the bytes that are damaged, but for FULL=1
}

// variants returns the same log in seven conditions.
func variants(t testing.TB) []variant {
	closed, file := Build(1, mmapwal.HardSync, 900), Build(2, mmapwal.HardSync, 4000)
	closed.Close()
	file.Close()
	synced, saved := Build(1, mmapwal.HardSync, 4000), Build(1, mmapwal.HardSync, 900)
	synced.Sync()
	noSync := Build(1, mmapwal.NoSync, 900)
	noSync.Save([3]uint64{7, 3, 30}, Entries(34, 34, 7)...)
	torn := Build(1, mmapwal.HardSync, 900)
	torn.Sync()
	before := torn.Now()
	torn.Save([3]uint64{}, Entries(34, 37, 6)...)
	secret := NewLog(1, mmapwal.HardSync)
	secret.Key = []byte("sixteen bytes ok")
	secret.Build(4000)
	secret.Sync()
	for _, l := range []*Log{closed, file, synced, saved, noSync, torn, secret} {
		if l.Err() != nil {
			t.Fatal(l.Err())
		}
	}
	all := []variant{
		{name: "closed, snapshot inline", log: closed, step: 2},
		{name: "closed, snapshot in a file", log: file, step: 4},
		{name: "killed after Sync", log: synced, step: 4},
		{name: "killed after Save", log: saved, step: 8},
		{name: "killed after Save, NoSync", log: noSync, vouched: 31, step: 8},
		{name: "last Save not vouched for", log: torn, vouched: before.State.Last(), step: 2},
		{name: "encrypted, killed after Sync", log: secret, step: 8},
	}
	for k := range all {
		all[k].Moment = all[k].log.Now()
	}
	all[5].Image = all[5].Image.With(metaName, before.Image[metaName])
	return all
}

// fellBackTo reports whether the log once had this hard state and checkpoint, so
// that a page of wal.meta that was stored without a sync may still say so.
func (v *variant) fellBackTo(hard [3]uint64, checkpoint uint64) bool {
	return slices.ContainsFunc(v.log.Moments, func(m Moment) bool { return m.State.Hard == hard && m.State.Noted == checkpoint })
}

// fellBackWithTail: under NoSync what looks like a torn write is dropped with the hard states
// that were stored behind it.
func (v *variant) fellBackWithTail(r *Reading) bool {
	return v.log.sync == mmapwal.NoSync && r.Last() < v.State.Last() && v.fellBackTo(r.Hard, r.Noted)
}

// outcome is what a damage does.
type outcome int

const (
	unharmed   outcome = iota // the right data
	healed                    // the right data, and the log tells that it healed something
	fellBack                  // to an older commit index or checkpoint; under NoSync, hard state; and it tells
	fellSilent                // the same, and it does not tell
	tornOff                   // a Save that nothing vouches for is dropped
	foundOpen                 // *CorruptError from Open
	foundRead                 // *CorruptError from a read
	otherError                // ErrForeign or ErrVersion from Open
	outcomes
)

func (o outcome) String() string {
	return [...]string{"unharmed", "healed", "fell back", "silently", "torn off", "found at open", "found at read", "foreign"}[o]
}

// harmless: the log goes on with the right data.
func (o outcome) harmless() bool { return o <= fellSilent }

// seedOf returns SEED, or else a new seed, and prints it.
func seedOf(t testing.TB) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", seed)
	return seed
}

// light: only a sample is damaged.
func light() bool { return underRace || testing.Short() }

// flips is the damage of single bits to one variant.
type flips struct {
	t    *testing.T
	v    variant
	disk *Disk
	r    *rand.Rand
	all  bool // bits
	step int64

	table   map[string]*[outcomes]int
	covered struct{ bits, bytes, usable int }
	byteOK  struct{ inUse, harmless int } // bytes, all of whose flipped bits did no harm
	torn    map[uint64]int                // last entries that are left
	// misnamed counts errors about a record that overwrites entries of its file,
	// which name the entry behind those that it overwrites.
	misnamed int
	later    int // damages that the Open after the next one found
}

// TestEveryBit flips the bits of a log, and opens and reads it each time: it is
// right, or an error says where it is damaged. By default one bit of every other byte is
// flipped in two of the logs, and of fewer bytes in the others; with FULL=1 all are.
func TestEveryBit(t *testing.T) {
	seed := seedOf(t)
	for k, v := range variants(t) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			f := &flips{
				t: t, v: v, disk: NewDisk(Dir), r: rand.New(rand.NewPCG(seed, uint64(k))), all: os.Getenv("FULL") == "1", step: v.step,
				table: make(map[string]*[outcomes]int), torn: make(map[uint64]int),
			}
			if f.all {
				f.step = 1
			} else if light() {
				f.step = 101
			}
			f.run()
		})
	}
}

func (f *flips) run() {
	for _, g := range regionsOf(f.v.Moment) {
		if f.table[g.kind] == nil {
			f.table[g.kind] = new([outcomes]int)
		}
		for at := g.from + f.r.Int64N(f.step); at < g.to; at += f.step {
			f.flipByte(g, at)
		}
	}
	f.report()
}

// flipByte flips one bit of a byte, or each of them.
func (f *flips) flipByte(g region, at int64) {
	bits := []int{f.r.IntN(8)}
	if f.all {
		bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
	}
	harmless := true
	for _, bit := range bits {
		o := f.flip(g, at, 1<<bit)
		f.table[g.kind][o]++
		f.covered.bits++
		harmless = harmless && o.harmless()
	}
	f.covered.bytes++
	if g.inUse {
		f.byteOK.inUse++
		if harmless {
			f.byteOK.harmless++
		}
	}
}

func (f *flips) flip(g region, at int64, bit byte) outcome {
	defer func() {
		if p := recover(); p != nil {
			f.t.Fatalf("%s, offset %d, bit %d: panic: %v", g.file, at, bit, p)
		}
	}()
	f.disk.Load(f.v.Image)
	f.disk.Flip(g.file, at, bit)
	o, wrong := f.try(g, at)
	if wrong != "" {
		f.t.Errorf("%s of %s, offset %d (%d of %d), bit %#x: %s", g.kind, g.file, at, at-g.from, g.to-g.from, bit, wrong)
	}
	return o
}

// try opens the log and reads it. wrong is "" unless something is.
func (f *flips) try(g region, at int64) (o outcome, wrong string) {
	before := f.disk.Changes
	d, err := Open(f.disk, 9, f.v.log.Options())
	if err != nil {
		if f.disk.Changes != before {
			return foundOpen, fmt.Sprintf("Open failed, and changed something: %v", err)
		}
		if !errors.Is(err, mmapwal.ErrCorrupt) && (errors.Is(err, mmapwal.ErrForeign) || errors.Is(err, mmapwal.ErrVersion)) {
			return otherError, ""
		}
		return foundOpen, f.wrongError(g, err)
	}
	r, err := Read(d)
	if err != nil {
		return unharmed, err.Error()
	}
	want := f.v.State.Clone()
	if g.file == metaName && f.v.log.sync == mmapwal.NoSync && f.v.fellBackTo(r.Hard, r.Noted) || f.v.fellBackWithTail(r) {
		want.Hard = r.Hard
	}
	if wrong := r.Wrong(want); wrong != "" {
		return unharmed, wrong
	}
	for _, err := range r.Errs {
		if wrong := f.wrongError(g, err); wrong != "" {
			return foundRead, wrong
		}
	}
	if o, wrong = f.judge(g, d, r); wrong != "" {
		return o, wrong
	}
	if o.harmless() && f.r.IntN(64) == 0 {
		f.covered.usable++
		var found *mmapwal.CorruptError
		wrong, found = usable(f.v.log, f.disk, d, r)
		if found != nil && filepath.Base(found.File) == g.file { // a slot that was not in use stands behind those in use now
			f.later++
			wrong = ""
		}
	}
	return o, wrong
}

// judge names what has come of right data.
func (f *flips) judge(g region, d *mmapwal.DiskStorage, r *Reading) (outcome, string) {
	want, stats := f.v.State, d.Stats()
	switch {
	case r.Last() < want.Last():
		f.torn[r.Last()]++
		// Only what the last Save stored may go, and only from the damage on.
		if f.v.vouched == 0 || g.entry <= f.v.vouched || r.Last() != g.entry-1 || stats.Recovery.TornBytes == 0 {
			return tornOff, fmt.Sprintf("the log ends at %d, want %d; %+v", r.Last(), want.Last(), stats.Recovery)
		}
		return tornOff, ""
	case r.Last() > want.Last():
		return unharmed, fmt.Sprintf("the log ends at %d, want %d", r.Last(), want.Last())
	case len(r.Errs) > 0:
		return foundRead, ""
	case r.Hard != want.Hard || r.Noted != want.Noted:
		if g.file != metaName || !f.v.fellBackTo(r.Hard, r.Noted) {
			return fellBack, fmt.Sprintf("hard state %d, checkpoint %d, want %d and %d", r.Hard, r.Noted, want.Hard, want.Noted)
		}
		if stats.Recovery.HealedPages == 0 {
			return fellSilent, ""
		}
		return fellBack, ""
	case stats.Recovery.HealedPages > 0 || stats.HealedFiles > 0:
		return healed, ""
	}
	return unharmed, ""
}

// wrongError says what is wrong with an error, if anything.
func (f *flips) wrongError(g region, err error) string {
	var e *mmapwal.CorruptError
	if !errors.As(err, &e) {
		return fmt.Sprintf("error %q is no *CorruptError", err)
	}
	if g.overwrites && e.First > g.entry && e.First == e.Last {
		f.misnamed++
		return ""
	}
	return wrongPlace(f.v.Image, e, []string{g.file}, g.entry)
}

// wrongPlace says what is wrong with the place that an error names: the file is
// none of the damaged ones, or, if wal.meta is damaged, any; the offset is out of
// range; or the entries are not those of a damaged record.
func wrongPlace(img Image, e *mmapwal.CorruptError, files []string, entry uint64) string {
	name := filepath.Base(e.File)
	c := img[name]
	switch {
	case !slices.Contains(files, name) && !slices.Contains(files, metaName):
		return fmt.Sprintf("error %q names %s, damaged is %v", e, name, files)
	case c != nil && (e.Offset < 0 || e.Offset > c.Size):
		return fmt.Sprintf("error %q has an offset outside of the file", e)
	case e.First > e.Last:
		return fmt.Sprintf("error %q has entries %d to %d", e, e.First, e.Last)
	case entry != 0 && e.First != 0 && (entry < e.First || entry > e.Last):
		return fmt.Sprintf("error %q does not cover entry %d", e, entry)
	}
	return ""
}

// usable saves an entry, closes the log, and compares what the next Open shows. It
// says what is wrong, and returns the damage that the Open found, if that is it.
func usable(l *Log, disk *Disk, d *mmapwal.DiskStorage, r *Reading) (wrong string, found *mmapwal.CorruptError) {
	last, term := r.Last(), max(r.Hard[0], r.lastTerm())+1
	e := &raftpb.Entry{Index: new(last + 1), Term: &term, Data: oracle.Data(last+1, term, 20)}
	h := &raftpb.HardState{Term: &term, Vote: new(uint64(1)), Commit: &last}
	if err := errors.Join(d.Save(h, []*raftpb.Entry{e}, nil), d.Close()); err != nil {
		return fmt.Sprintf("not usable: %v", err), nil
	}
	want := r.Clone()
	want.Save([]*raftpb.Entry{e})
	want.Hard = [3]uint64{term, 1, last}
	d, err := Open(disk, 10, l.Options())
	if err != nil {
		errors.As(err, &found)
		return fmt.Sprintf("saved to, and cannot be opened: %v", err), found
	}
	again, err := Read(d)
	if err != nil {
		return fmt.Sprintf("saved to, opened: %v", err), nil
	}
	if wrong := again.Wrong(want); wrong != "" || len(again.Errs) > 0 || again.Last() != last+1 || again.Hard != want.Hard {
		return fmt.Sprintf("saved to, opened: %s, %v, last %d", wrong, again.Errs, again.Last()), nil
	}
	return "", nil
}

func (s *State) lastTerm() uint64 {
	if len(s.Entries) == 0 {
		return s.Base[1]
	}
	return s.Entries[len(s.Entries)-1].GetTerm()
}

// report prints the table, and fails the test if too little was covered.
func (f *flips) report() {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%-36s", "region")
	for o := range outcomes {
		fmt.Fprintf(&out, "%15v", o)
	}
	for _, kind := range slices.Sorted(maps.Keys(f.table)) {
		fmt.Fprintf(&out, "\n%-36s", kind)
		for _, n := range f.table[kind] {
			fmt.Fprintf(&out, "%15s", strings.TrimPrefix(strconv.Itoa(n), "0"))
		}
	}
	f.t.Logf("%d bits of %d bytes flipped, %d logs used on; of %d bytes in use %.1f%% do no harm; torn off behind %v; %d errors name a later entry; %d found later\n%s",
		f.covered.bits, f.covered.bytes, f.covered.usable, f.byteOK.inUse, 100*float64(f.byteOK.harmless)/float64(max(f.byteOK.inUse, 1)), f.torn, f.misnamed, f.later, &out)
	if f.covered.bytes < 30_000/int(f.step) {
		f.t.Errorf("only %d bytes were damaged", f.covered.bytes)
	}
	if f.v.vouched != 0 && f.step == 1 && f.v.log.sync == mmapwal.HardSync && len(f.torn) != int(f.v.State.Last()-f.v.vouched) {
		f.t.Errorf("torn off behind %v, want behind each entry from %d to %d", f.torn, f.v.vouched, f.v.State.Last()-1)
	}
}
