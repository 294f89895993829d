package damage

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// saves is a log of some Saves of three entries each to one file, under HardSync.
type saves struct {
	t       *testing.T
	now     Moment
	metas   []*Content // wal.meta as it was behind each Save
	old     []byte     // the entry file, up to the end of the data
	records []record
	ends    []int64 // of the data behind each Save
	disk    *Disk
	count   struct{ torn, corrupt, untold int }
}

const (
	tornFile = "00001.wal"
	perSave  = 3
	numSaves = 5
)

func newSaves(t *testing.T) *saves {
	s := &saves{t: t, disk: NewDisk(Dir)}
	l := NewLog(1, mmapwal.HardSync)
	l.Open()
	for k := range uint64(numSaves) {
		var es []*raftpb.Entry
		for i := k*perSave + 1; i <= (k+1)*perSave; i++ {
			es = append(es, &raftpb.Entry{Index: new(i), Term: new(uint64(1)), Data: oracle.Data(i, 1, int(i*97%900))})
		}
		h := [3]uint64{}
		if k == 0 {
			h = [3]uint64{1, 1, 0}
		}
		l.Save(h, es...)
		s.metas = append(s.metas, l.Now().Image[metaName])
	}
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
	s.now = l.Now()
	s.old = s.now.Image[tornFile].Bytes()
	s.records = recordsOf(s.old)
	for k := perSave - 1; k < len(s.records); k += perSave {
		s.ends = append(s.ends, s.records[k].end)
	}
	s.old = s.old[:s.ends[numSaves-1]]
	return s
}

// whole reports whether the k-th record is as it was, but for the padding.
func (s *saves) whole(p []byte, k int) bool {
	r := s.records[k]
	end := r.at + entryfile.RecordHeaderBytes + r.payload
	return string(p[r.at:end]) == string(s.old[r.at:end])
}

// hit returns the first record that is damaged.
func (s *saves) hit(p []byte) (first int) {
	for first < len(s.records) && s.whole(p, first) {
		first++
	}
	return first
}

// witnessed: a whole record behind the first damaged one was appended when that
// was durable already.
func (s *saves) witnessed(p []byte, first int) bool {
	for k := (first/perSave + 1) * perSave; k < len(s.records); k++ {
		if s.whole(p, k) {
			return true
		}
	}
	return false
}

// try opens the log with this content, and wal.meta as it was behind a Save.
func (s *saves) try(what string, meta int, p []byte) {
	s.t.Helper()
	first := s.hit(p)
	promised := first < len(s.records) && s.records[first].at < s.ends[meta]
	s.disk.Load(s.now.Image.With(metaName, s.metas[meta]))
	s.disk.Put(tornFile, entryfile.DataStart, p[entryfile.DataStart:])
	d, err := Open(s.disk, 9, Options())
	if promised || s.witnessed(p, first) {
		s.count.corrupt++
		r := s.records[first].at
		named := string(p[r:r+entryfile.RecordHeaderBytes]) == string(s.old[r:r+entryfile.RecordHeaderBytes])
		s.wantCorrupt(what, first, named, err)
		return
	}
	if err != nil {
		s.t.Errorf("%s: %v, want it torn behind %d entries", what, err, first)
		return
	}
	if r, err := Read(d); err != nil || len(r.Errs) > 0 || int(r.Last()) != first || r.Wrong(s.now.State) != "" {
		s.t.Errorf("%s: %v; the log ends at %d, want %d", what, err, r.Last(), first)
	}
	s.count.torn++
	if first < (numSaves-1)*perSave {
		s.count.untold++ // a Save that had returned is gone, and wal.meta of its time with it
	}
}

// wantCorrupt: err tells where the first damaged record is, and its entry, if its header is
// whole, so that it names it; if not, the error tells those that it may be.
func (s *saves) wantCorrupt(what string, first int, named bool, err error) {
	s.t.Helper()
	var e *mmapwal.CorruptError
	if !errors.As(err, &e) || filepath.Base(e.File) != tornFile || e.Offset != s.records[first].at {
		s.t.Errorf("%s: %v, want damage at %d", what, err, s.records[first].at)
	} else if i := s.records[first].index; first > 0 && (e.Last != i || e.First > i || named && e.First != i) {
		s.t.Errorf("%s: %v, want entry %d", what, err, i)
	}
}

// TestTornOrDamaged damages the records of some Saves, word by word: what nothing
// vouches for is dropped, and all else is refused.
func TestTornOrDamaged(t *testing.T) {
	s := newSaves(t)
	end := int64(len(s.old))
	p := slices.Clone(s.old)
	for meta := range numSaves {
		for at := int64(entryfile.DataStart); at < end; at += 8 {
			if light() && at%136 != 0 {
				continue
			}
			for _, fill := range []byte{0, 0xff} {
				for k := range 8 {
					p[at+int64(k)] = fill
				}
				s.try(fmt.Sprintf("wal.meta of Save %d, word at %d is %#x", meta+1, at, fill), meta, p)
			}
			clear(p[at:end])
			s.try(fmt.Sprintf("wal.meta of Save %d, zeros from %d on", meta+1, at), meta, p)
			copy(p[at:], s.old[at:])
		}
	}
	t.Logf("%d torn, %d refused; %d cannot be told: all witnesses of a Save that had returned are gone with it",
		s.count.torn, s.count.corrupt, s.count.untold)
	if s.count.corrupt == 0 || s.count.torn == 0 {
		t.Error("one of the two was not tried")
	}
}

// TestTornSectors loses every subset of the sectors that the last Save stored to,
// each time with one that is torn, at every word, head or tail.
func TestTornSectors(t *testing.T) {
	s := newSaves(t)
	from, to := s.ends[numSaves-2], s.ends[numSaves-1]
	first := from / 512
	sectors := to/512 - first + 1
	p := slices.Clone(s.old)
	lose := func(sector, a, b int64) { // its bytes [a, b)
		start := (first + sector) * 512
		if a, b = max(from, start+a), min(to, start+b); a < b {
			clear(p[a:b])
		}
	}
	for subset := range 1 << sectors {
		for torn := range sectors * 64 {
			if light() && torn%17 != 0 {
				continue
			}
			for _, cut := range [][2]int64{{0, torn % 64 * 8}, {torn % 64 * 8, 512}} {
				copy(p, s.old)
				for k := range sectors {
					if subset>>k&1 == 1 {
						lose(k, 0, 512)
					}
				}
				lose(torn/64, cut[0], cut[1])
				s.try(fmt.Sprintf("sectors %b, and %v of %d", subset, cut, torn/64), numSaves-2, p)
			}
		}
	}
	t.Logf("%d sectors, %d torn, %d refused", sectors, s.count.torn, s.count.corrupt)
	if s.count.corrupt > 0 {
		t.Error("a torn write was refused")
	}
}
