package repair

import (
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
)

// testimony is what header and slots of a file with damaged records say about its
// entries. Where a record is whole, one that replaced it may have been among those
// that are not.
type testimony struct {
	header entryfile.Header
	slots  []byte
	gaps   []int64 // offsets of damage
	behind int64   // the last of them
	clean  bool    // the log was closed: the slots of a file that is not sealed count, too
}

// testimonies returns the testimony of each file with damaged records, by name.
func (w *work) testimonies(l *inspect.Log) (map[string]*testimony, error) {
	all := make(map[string]*testimony)
	for _, p := range l.Problems {
		if needs(&p) != rewrite || p.Kind == inspect.KindCut && !cutsRecords(l, p.File) {
			continue
		}
		t, err := w.testimonyOf(all[p.File], p.File)
		if err != nil {
			return nil, err
		}
		t.gaps, t.behind = append(t.gaps, p.Offset), max(t.behind, p.Offset)
		t.clean = l.Meta != nil && l.Meta.Clean
		all[p.File] = t
	}
	return all, nil
}

// cutsRecords reports whether records may have stood in what is gone of a file.
func cutsRecords(l *inspect.Log, name string) bool {
	for _, f := range l.Files {
		if f.Name == name {
			return f.Held.HidesEnd || f.Header.Sealed && f.Header.Seal.End > f.Size
		}
	}
	return false
}

// testimonyOf reads the testimony of a file, unless it is known.
func (w *work) testimonyOf(known *testimony, name string) (*testimony, error) {
	if known != nil {
		return known, nil
	}
	t := &testimony{slots: make([]byte, entryfile.MaxSlots*entryfile.SlotBytes)}
	f, err := w.fsys.Open(filepath.Join(w.dir, name), true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, _ = f.ReadAt(t.slots, 0) // what cannot be read says nothing
	if t.header, err = w.header(name); err != nil {
		t.header = entryfile.Header{} // nor does a file without one
	}
	return t, nil
}

// on says whether e was replaced by a record that is lost; known is false if nothing
// tells. t is nil for a file without damaged records.
func (t *testimony) on(e inspect.Entry) (replaced, known bool) {
	if t == nil || e.Offset >= t.behind {
		return false, true
	}
	seal := &t.header.Seal
	if seal.HasDigest && seal.First <= e.Index && e.Index <= seal.Last {
		term := uint64(0)
		for _, run := range seal.Terms {
			if run.First <= e.Index {
				term = run.Term
			}
		}
		return term != e.Term, true // index and term tell an entry
	}
	if !t.header.Sealed && !t.clean {
		return false, false
	}
	first := seal.First
	if slot, ok := entryfile.InspectSlot(t.slots, 0, t.header.Salt); ok && !t.header.Sealed {
		first = slot.Index
	}
	if first == 0 || e.Index < first || e.Index-first >= entryfile.MaxSlots {
		return false, false
	}
	slot, ok := entryfile.InspectSlot(t.slots, e.Index-first, t.header.Salt)
	if !ok || slot.Index != e.Index {
		return false, false
	}
	return slot.Term != e.Term, true
}
