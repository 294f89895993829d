package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/damage"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

var key = []byte(strings.Repeat("k", 32))

// built returns logs in which a lot has happened, open and closed ones.
func built(t *testing.T) map[string]*damage.Log {
	t.Helper()
	logs := make(map[string]*damage.Log)
	for _, encrypted := range []bool{false, true} {
		for _, snapshot := range []int{10, 5000} {
			for _, sync := range []mmapwal.SyncPolicy{mmapwal.HardSync, mmapwal.NoSync} {
				l := damage.NewLog(byte(len(logs)), sync)
				if encrypted {
					l.Key = key
				}
				l.Build(snapshot)
				l.Close()
				l.Open()
				l.Close()
				if l.Err() != nil {
					t.Fatal(l.Err())
				}
				logs[fmt.Sprintf("encrypted=%v,snapshot=%d,sync=%v", encrypted, snapshot, sync)] = l
			}
		}
		if !testing.Short() || encrypted {
			logs[fmt.Sprintf("encrypted=%v,rotated,HardSync", encrypted)] = rotated(t, byte(len(logs)), encrypted, mmapwal.HardSync)
		}
		if !testing.Short() || !encrypted {
			logs[fmt.Sprintf("encrypted=%v,rotated,NoSync", encrypted)] = rotated(t, byte(len(logs)), encrypted, mmapwal.NoSync)
		}
	}
	return logs
}

// disk is where images are looked at. It keeps the memory of those it has seen.
var disk = damage.NewDisk(damage.Dir)

// look looks at an image.
func look(t testing.TB, img damage.Image, key []byte, check bool) *Log {
	t.Helper()
	disk.Load(img)
	changes := disk.Changes
	o := Options{Check: check, once: true}
	if key != nil {
		var err error
		if o.Wrapper, err = encryption.NewKeyWrapper(key); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Look(context.Background(), disk, damage.Dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if disk.Changes > changes {
		t.Fatalf("looking made %d changes", disk.Changes-changes)
	}
	return l
}

// TestSoundLogs: at no moment of its life is there anything wrong with a log, and
// all its entries are found.
func TestSoundLogs(t *testing.T) {
	for name, log := range built(t) {
		t.Run(name, func(t *testing.T) {
			for k, m := range log.Moments {
				for _, check := range []bool{false, true} {
					if check && k%4 != 0 && k < len(log.Moments)-1 {
						continue // it takes a while, and shows nothing new
					}
					l := look(t, m.Image, log.Key, check)
					if l.Damaged() {
						t.Fatalf("moment %d, %s: %+v", k, m.Name, l.Problems)
					}
					compare(t, l, m)
				}
			}
		})
	}
}

// compare compares the entries that are found with those that are there.
func compare(t *testing.T, l *Log, m damage.Moment) {
	t.Helper()
	if l.First != m.State.Base[0]+1 || l.Last != m.State.Last() || l.Meta.Clean != m.Clean {
		t.Fatalf("%s: entries %d to %d, clean %v; want %d to %d, %v", m.Name, l.First, l.Last, l.Meta.Clean, m.State.Base[0]+1, m.State.Last(), m.Clean)
	}
	next := l.First
	err := l.Each(context.Background(), 0, l.Last, func(e Entry) error {
		want := m.State.Entry(next)
		if e.Err != nil || e.Index != next || e.Term != want.GetTerm() || int32(e.Type) != int32(want.GetType()) || string(e.Data) != string(want.GetData()) {
			t.Fatalf("%s: got %+v, want %v", m.Name, e, want)
		}
		next++
		return nil
	})
	if err != nil || next != l.Last+1 {
		t.Fatalf("%s: %v, %d entries short", m.Name, err, l.Last+1-next)
	}
}

// TestWithoutKey: what stands in clear is found without the key, too.
func TestWithoutKey(t *testing.T) {
	for name, log := range built(t) {
		if log.Key == nil {
			continue
		}
		m := log.Now()
		l := look(t, m.Image, nil, true)
		if l.Damaged() || l.Last != m.State.Last() || !has(l, KindUnchecked) {
			t.Errorf("%s: %+v", name, l.Problems)
		}
		err := l.Each(context.Background(), 0, 1, func(Entry) error { return nil })
		if !errors.Is(err, encryption.ErrKeyRequired) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func has(l *Log, kind string) bool {
	for _, p := range l.Problems {
		if p.Kind == kind {
			return true
		}
	}
	return false
}

// TestFlips: whatever bit is flipped of what is in use, it is reported, in the
// right file and place, as damage if the engine cannot do without it.
func TestFlips(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = 1
	}
	t.Logf("SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	n := 6
	if testing.Short() {
		n = 4
	}
	logs := built(t)
	for _, name := range slices.Sorted(maps.Keys(logs)) { // a seed tells all that happens
		log := logs[name]
		t.Run(name, func(t *testing.T) {
			moments := []damage.Moment{log.Now(), log.Moments[len(log.Moments)-4]}
			times := n
			if k := slices.IndexFunc(log.Moments, func(m damage.Moment) bool { return m.Name == killed }); k >= 0 {
				moments, times = append(moments, log.Moments[k]), n/4 // its files are large
			}
			for _, m := range moments {
				before := look(t, m.Image, log.Key, true)
				for range times {
					disk.Forget()
					for _, file := range m.Image.Names() {
						at := usedPlace(r, file, m.Image[file].Size, before)
						flip(t, log, m, file, at, byte(1<<r.IntN(8)), before)
					}
				}
			}
		})
	}
}

// usedPlace returns the offset of a byte near what is in use.
func usedPlace(r *rand.Rand, file string, size int64, before *Log) int64 {
	if !strings.HasSuffix(file, entryfile.Suffix) {
		return r.Int64N(size)
	}
	switch r.IntN(4) {
	case 0:
		return r.Int64N(20 * entryfile.SlotBytes)
	case 1:
		return entryfile.HeaderPages[0] + r.Int64N(2*page.Size)
	case 2:
		k := slices.IndexFunc(before.Files, func(f *File) bool { return f.Name == file })
		if end := before.Files[k].End; end > entryfile.DataStart {
			return end - 1 - r.Int64N(min(100, end-entryfile.DataStart))
		}
	}
	return entryfile.DataStart + r.Int64N(1200)
}

func flip(t *testing.T, log *damage.Log, m damage.Moment, file string, at int64, bits byte, before *Log) {
	t.Helper()
	img := m.Image.With(file, m.Image[file].Edit(func(p []byte) []byte { p[at] ^= bits; return p }))
	l := look(t, img, log.Key, true)
	refused, missing := engine(log, img)
	if (refused || missing) && !l.Damaged() {
		t.Fatalf("%s, %s at %d: the engine cannot do without it, but there is no damage: %+v", m.Name, file, at, l.Problems)
	}
	if len(l.Problems) <= len(before.Problems) && !excused(m, file, at, before) {
		t.Fatalf("%s, %s at %d: not noticed: %+v", m.Name, file, at, l.Problems)
	}
	for _, p := range l.Problems {
		if p.Kind == KindRefused && p.File == file {
			return // a slot not in use that is no longer empty: Open takes Dgraph for its writer
		}
		if p.Kind == KindRefused {
			t.Fatalf("%s, %s at %d: only Open noticed: %+v", m.Name, file, at, p)
		}
		if p.Severity == Damage && p.File == file && strings.HasSuffix(file, metafile.SnapshotSuffix) {
			return // it counts as a whole: the header cannot tell which of its fields is wrong
		}
		if p.Severity == Damage && p.File == file && p.Offset <= at && (p.Length == 0 || at < p.Offset+p.Length) {
			return
		}
	}
	if l.Damaged() && !(strings.HasSuffix(file, entryfile.Suffix) && at >= entryfile.HeaderPages[0] && at < entryfile.DataStart) {
		t.Fatalf("%s, %s at %d: reported elsewhere: %+v", m.Name, file, at, l.Problems)
	}
}

// excused: nobody can notice, or it is part of a problem that was there before.
func excused(m damage.Moment, file string, at int64, before *Log) bool {
	if strings.HasSuffix(file, entryfile.Suffix) && !m.Clean && at < entryfile.HeaderPages[0] {
		return true // slots that Open rebuilds
	}
	if strings.HasSuffix(file, entryfile.SpareSuffix) {
		return true // it holds nothing
	}
	for _, p := range before.Problems {
		if p.File == file && (p.Kind == KindLeftover || p.Kind == KindTorn && at >= p.Offset) {
			return true
		}
	}
	p := m.Image[file].Bytes()
	if file == metafile.Name {
		k := at / page.Size * page.Size
		return isZero(p[k : k+page.Size]) // it was never written
	}
	for _, f := range before.Files {
		if f.Name == file && at >= entryfile.DataStart {
			if f.Reused && at >= f.End {
				return true // what was there before is not known
			}
			for _, piece := range f.Pieces {
				if piece.From <= at && at < piece.To && piece.Kind == Punched {
					return true
				}
			}
		}
	}
	return false
}

// engine says what the engine makes of an image.
func engine(log *damage.Log, img damage.Image) (refused, missing bool) {
	disk.Load(img)
	opts := log.Options()
	opts.ReadOnly = true
	d, err := damage.Open(disk, 1, opts)
	if err != nil {
		return true, false
	}
	defer func() { _ = d.Close() }()
	reading, err := damage.Read(d)
	return err != nil, err == nil && len(reading.Errs) > 0
}
