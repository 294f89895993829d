package inspect

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/damage"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// killed is the name of the moment of a rotated log when its owner dies with several
// files that are full and not sealed, and a next one.
const killed = "killed"

// rotation makes a log of many files. What the engine does in the background is done
// at once, or kept for later.
type rotation struct {
	t       *testing.T
	log     *damage.Log
	disk    *damage.Disk
	wal     *mmapwal.DiskStorage
	state   *damage.State
	seed    byte
	sync    mmapwal.SyncPolicy
	late    bool     // keep the background for later
	pending []func() // what was kept
}

// rotated returns a log that uses spare files again, was killed with files that are
// full and not sealed, was recovered, and closed.
func rotated(t *testing.T, seed byte, encrypted bool, sync mmapwal.SyncPolicy) *damage.Log {
	t.Helper()
	r := &rotation{t: t, log: new(damage.Log), disk: damage.NewDisk(damage.Dir), state: new(damage.State), seed: seed, sync: sync}
	if encrypted {
		r.log.Key = key
	}
	r.open()
	r.save(1, 40, 1)
	r.save(38, 44, 2) // replaces a suffix
	r.snapshot(30)    // leaves spare files
	r.save(45, 62, 2)
	r.snapshot(50)
	r.save(63, 66, 2)
	must(t, r.wal.Close())
	r.note("closed", true)
	r.open()
	r.late = true
	r.save(67, 80, 3)
	r.save(60, 95, 4) // replaces more than a file
	r.pending[0]()    // what was woken first makes the next file
	r.note(killed, false)
	r.open()
	r.save(96, 100, 5)
	r.snapshot(70)
	r.save(101, 112, 5)
	must(t, r.wal.Close())
	r.note("closed", true)
	r.open()
	r.save(113, 120, 6)
	r.note("dead", false)
	r.open()
	must(t, r.wal.Close())
	r.note("closed again", true)
	return r.log
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens the log; if it was not closed its owner is dead.
func (r *rotation) open() {
	r.t.Helper()
	r.disk.Load(r.disk.Image())
	r.disk.Forget()
	r.late, r.pending, r.seed = false, nil, r.seed+16
	opts := r.log.Options()
	opts.Sync = r.sync
	var err error
	r.wal, err = mmapwal.OpenOn(host.Host{
		FS: r.disk, Random: rand.NewChaCha8([32]byte{r.seed}), Go: r.run, After: host.Never,
	}, damage.Dir, opts)
	must(r.t, err)
	clean := len(r.log.Moments) > 0 && r.log.Now().Clean && r.log.Key == nil // see damage.Log.Open
	r.note("opened", clean)
}

func (r *rotation) run(f func()) {
	if r.late {
		r.pending = append(r.pending, f)
		return
	}
	f()
}

func (r *rotation) note(name string, clean bool) {
	r.log.Moments = append(r.log.Moments, damage.Moment{Name: name, Image: r.disk.Image(), State: r.state.Clone(), Clean: clean})
}

// save saves the entries [from, to], two at a time: a file takes some nine of them.
func (r *rotation) save(from, to, term uint64) {
	r.t.Helper()
	for i := from; i <= to; i += 2 {
		var es []*raftpb.Entry
		for k := i; k <= min(i+1, to); k++ {
			es = append(es, &raftpb.Entry{Index: new(k), Term: new(term), Data: bytes.Repeat([]byte{byte(k), byte(term)}, 55_000+int(k))})
		}
		r.state.Save(es)
		must(r.t, r.wal.Save(nil, es, nil))
		if i%12 < 2 {
			r.note("saved", false)
		}
	}
}

func (r *rotation) snapshot(i uint64) {
	r.t.Helper()
	r.state.Compact(i)
	r.state.Snap, r.state.Voters, r.state.SnapData = r.state.Base, []uint64{1}, []byte("state")
	must(r.t, r.wal.CreateSnapshot(i, &raftpb.ConfState{Voters: r.state.Voters}, r.state.SnapData))
	r.note("snapshot", false)
}

// TestRotatedLogs: the moments of a rotated log show all that a file can be.
func TestRotatedLogs(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		log := rotated(t, 1, encrypted, mmapwal.HardSync)
		seen := make(map[string]int)
		for _, m := range log.Moments {
			l := look(t, m.Image, log.Key, true)
			full, next := 0, 0
			for _, f := range l.Files {
				if f.Ended && !f.Sealed {
					full++
				}
				if f.Reused {
					seen["reused"]++
				}
				if f.Bytes[Stale] > 0 {
					seen["stale"]++
				}
				if f.Role == RoleNext {
					next++
				}
				seen[string(f.Role)]++
			}
			for _, o := range l.Others {
				seen[string(o.Role)]++
			}
			if m.Name == killed {
				seen["full when killed"], seen["next when killed"] = full, next
			}
			if m.Clean && full > 0 {
				t.Errorf("%s: %d files are not sealed", m.Name, full)
			}
		}
		for what, n := range map[string]int{"reused": 1, "stale": 1, "live": 1, "next when killed": 1, "spare": 1, "full when killed": 2} {
			if seen[what] < n {
				t.Errorf("encrypted=%v: %s: %d times, want %d: %v", encrypted, what, seen[what], n, seen)
			}
		}
		if seen[string(RoleTorn)] > 0 {
			t.Errorf("torn files without a power cut: %v", seen)
		}
	}
}

// TestLostEnd: a power cut may take the record that ends a file that is not sealed,
// and leave the files behind it. They are no part of the log then, unless something
// vouches for what was lost.
func TestLostEnd(t *testing.T) {
	for _, sync := range []mmapwal.SyncPolicy{mmapwal.HardSync, mmapwal.NoSync} {
		for _, encrypted := range []bool{false, true} {
			log := rotated(t, 2, encrypted, sync)
			m := log.Moments[slices.IndexFunc(log.Moments, func(m damage.Moment) bool { return m.Name == killed })]
			before := look(t, m.Image, log.Key, true)
			k := slices.IndexFunc(before.Files, func(f *File) bool { return f.Ended && !f.Sealed })
			f := before.Files[k]
			img := m.Image.With(f.Name, m.Image[f.Name].Edit(func(p []byte) []byte { clear(p[f.End-48 : f.End]); return p }))
			l := look(t, img, log.Key, true)
			refused, _ := engine(log, img)
			if refused != (sync == mmapwal.HardSync) || l.Damaged() != refused {
				t.Fatalf("%v, encrypted=%v: refused=%v: %+v", sync, encrypted, refused, l.Problems)
			}
			if refused {
				if p := l.Problems[0]; p.Kind != KindRecord || p.File != f.Name || p.Offset > f.End-32 || p.Offset < f.End-entryfile.RecordBytes(120_000) {
					t.Errorf("%v, encrypted=%v: %+v", sync, encrypted, p)
				}
				continue
			}
			for _, behind := range l.Files[k+1:] {
				if behind.Role != RoleTorn && behind.Role != RoleNext || behind.Last != 0 || behind.Bytes[Live] > 0 {
					t.Errorf("encrypted=%v: %+v", encrypted, behind)
				}
			}
			if l.Files[k+1].Role != RoleTorn || !has(l, KindTorn) {
				t.Errorf("encrypted=%v: %+v", encrypted, l.Problems)
			}
		}
	}
}

// TestZeroed: of a log that was killed, and lost a sector, the same entries are shown
// as the engine has, or damage where it finds some.
func TestZeroed(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 15
	}
	for _, sync := range []mmapwal.SyncPolicy{mmapwal.HardSync, mmapwal.NoSync} {
		r := rand.New(rand.NewPCG(1, 3))
		log := rotated(t, 3, false, sync)
		m := log.Moments[slices.IndexFunc(log.Moments, func(m damage.Moment) bool { return m.Name == killed })]
		before := look(t, m.Image, log.Key, false)
		for range n {
			disk.Forget()
			f := before.Files[r.IntN(len(before.Files))]
			from, to := int64(entryfile.DataStart), max(f.End, entryfile.DataStart+512)
			if r.IntN(2) == 0 {
				from = max(to-1024, from)
			}
			at := (from + r.Int64N(to-from)) &^ 511
			img := m.Image.With(f.Name, m.Image[f.Name].Edit(func(p []byte) []byte { clear(p[at : at+512]); return p }))
			agree(t, log, img, f.Name, at)
		}
	}
}

// agree compares what is found with what the engine makes of an image.
func agree(t *testing.T, log *damage.Log, img damage.Image, file string, at int64) {
	t.Helper()
	l := look(t, img, log.Key, true)
	disk.Load(img)
	opts := log.Options()
	opts.ReadOnly = true
	d, err := damage.Open(disk, 1, opts)
	if err != nil {
		if !l.Damaged() || has(l, KindRefused) {
			t.Fatalf("%s at %d: %v; found: %+v", file, at, err, l.Problems)
		}
		return
	}
	defer func() { _ = d.Close() }()
	first, err := d.FirstIndex()
	must(t, err)
	last, err := d.LastIndex()
	must(t, err)
	if !l.Damaged() && (l.First != first || l.Last != last) {
		t.Fatalf("%s at %d: entries %d to %d; the engine has %d to %d: %+v", file, at, l.First, l.Last, first, last, l.Problems)
	}
}
