package repair

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// said is an entry as it was saved.
type said struct {
	term uint64
	data string
}

// suffix is entries that are saved, with the commit index; they replace those that are there.
type suffix struct {
	from, to, term, commit uint64
	bytes                  int // of each
}

// saved returns a log that each of the suffixes was saved to, as it is if its owner dies then,
// or after it was closed; and what its entries are.
func saved(t *testing.T, key []byte, closed bool, all ...suffix) (map[string]string, map[uint64]said) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "made")
	wal, err := mmapwal.Open(dir, &mmapwal.Options{Key: bytes.Clone(key), FileDataSize: entryfile.MinDataBytes, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	truth := make(map[uint64]said)
	for _, s := range all {
		var es []*raftpb.Entry
		for i := s.from; i <= s.to; i++ {
			data := fmt.Sprintf("entry %d of term %d %*s", i, s.term, s.bytes, "")
			truth[i] = said{s.term, data}
			es = append(es, &raftpb.Entry{Index: new(i), Term: new(s.term), Data: []byte(data)})
		}
		maps.DeleteFunc(truth, func(i uint64, _ said) bool { return i > s.to })
		must(t, wal.Save(&raftpb.HardState{Term: new(s.term), Vote: new(uint64(1)), Commit: new(s.commit)}, es, nil))
	}
	if closed {
		must(t, wal.Close())
		return contentOf(t, dir), truth
	}
	must(t, wal.Sync())
	content := contentOf(t, dir)
	must(t, wal.Close())
	return content, truth
}

// repaired repairs a log that holds content, and checks the repair's words: the first entry
// that is another one now, or missing, is among those that it calls lost, or speaks of as
// doubtful. It returns the report and the entries that are there.
func repaired(t *testing.T, key []byte, content map[string]string, truth map[uint64]said) (*Report, map[uint64]said) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	put(t, dir, content)
	var o Options
	if key != nil {
		var err error
		o.Wrapper, err = encryption.NewKeyWrapper(key)
		must(t, err)
	}
	p, err := Rehearse(context.Background(), dir, o)
	must(t, err)
	defer p.Close()
	if p.Report.Refused != "" {
		t.Fatalf("refused: %s", p.Report.Refused)
	}
	must(t, p.Execute(context.Background(), filepath.Join(t.TempDir(), "backup")))
	must(t, p.Close())
	wal, err := mmapwal.Open(dir, &mmapwal.Options{Key: bytes.Clone(key), FileDataSize: entryfile.MinDataBytes, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer wal.Close()
	now := entriesOf(t, wal)
	if wrong := wordsWrong(&p.Report, truth, now); wrong != "" {
		t.Fatalf("%s\n%+v", wrong, p.Report)
	}
	return &p.Report, now
}

// entriesOf returns what a log holds.
func entriesOf(t *testing.T, wal *mmapwal.DiskStorage) map[uint64]said {
	t.Helper()
	all := make(map[uint64]said)
	first, _ := wal.FirstIndex()
	last, _ := wal.LastIndex()
	if last < first {
		return all
	}
	es, err := wal.Entries(first, last+1, 1<<40)
	must(t, err)
	for _, e := range es {
		all[e.GetIndex()] = said{e.GetTerm(), string(e.Data)}
	}
	return all
}

// wordsWrong compares what a repair says with what has changed; "" if it is true.
func wordsWrong(r *Report, truth, now map[uint64]said) string {
	first, what := uint64(0), ""
	note := func(i uint64, format string, args ...any) {
		if first == 0 || i < first {
			first, what = i, fmt.Sprintf("entry %d ", i)+fmt.Sprintf(format, args...)
		}
	}
	for i, was := range truth {
		if is, ok := now[i]; !ok {
			note(i, "is missing")
		} else if is != was {
			note(i, "is %.25q of term %d, and was %.25q of term %d", is.data, is.term, was.data, was.term)
		}
	}
	for i := range now {
		if _, ok := truth[i]; !ok {
			note(i, "was never there")
		}
	}
	lost := r.Lost != nil && r.Lost.First <= first
	may := r.MayDiffer != nil && r.MayDiffer.First <= first || r.More && first > r.After.Last
	switch {
	case first != 0 && !lost && !may:
		return what + ", and the repair does not say so"
	case r.Lost != nil && first == 0:
		return fmt.Sprintf("nothing has changed, but the repair says that %d to %d are lost", r.Lost.First, r.Lost.Last)
	case r.Lost != nil && r.Lost.First < first:
		return fmt.Sprintf("the repair says that entries are lost from %d on, but %s", r.Lost.First, what)
	}
	return ""
}

// TestReplaced: a file that replaced others is lost, between them: what it replaced does not
// come back behind what a later file holds, and that is kept.
func TestReplaced(t *testing.T) {
	content, truth := saved(t, nil, false, suffix{1, 30, 1, 10, 60 << 10}, suffix{12, 20, 2, 10, 100}, suffix{11, 19, 3, 19, 100})
	for name, spoil := range map[string]func(string) string{
		"cut":     func(p string) string { return p[:100<<10] },
		"emptied": func(p string) string { return "" },
		"header pages zeroed": func(p string) string {
			return p[:entryfile.HeaderPages[0]] + string(make([]byte, 2*page.Size)) + p[entryfile.DataStart:]
		},
		"removed": nil,
	} {
		t.Run(name, func(t *testing.T) {
			content := maps.Clone(content)
			whole := content["00003.wal"]
			if delete(content, "00003.wal"); spoil != nil {
				content["00003.wal"] = spoil(whole)
			}
			r, now := repaired(t, nil, content, truth)
			if !maps.Equal(now, truth) || r.MayDiffer == nil || r.MayDiffer.Last != 10 {
				t.Errorf("%d entries: %+v", len(now), r)
			}
		})
	}
}

// TestFirstSector: one sector is lost, where a file that is in use begins, and with it which
// entries it replaces.
func TestFirstSector(t *testing.T) {
	for _, key := range [][]byte{nil, bytes.Repeat([]byte("k"), 32)} {
		content, truth := saved(t, key, false, suffix{1, 10, 1, 2, 200 << 10}, suffix{3, 20, 2, 20, 60})
		p := []byte(content["00003.wal"])
		clear(p[entryfile.DataStart:][:512])
		content["00003.wal"] = string(p)
		if r, _ := repaired(t, key, content, truth); !r.Loses() {
			t.Errorf("%+v", r)
		}
	}
}

// TestSupersededRecord: damage in what later files have replaced costs nothing.
func TestSupersededRecord(t *testing.T) {
	for _, closed := range []bool{false, true} {
		content, truth := saved(t, nil, closed, suffix{1, 12, 1, 2, 200 << 10}, suffix{3, 16, 3, 16, 100})
		flip(content, "00002.wal", entryfile.DataStart+40)
		if r, now := repaired(t, nil, content, truth); r.Loses() || !maps.Equal(now, truth) {
			t.Errorf("closed %v: %d entries: %+v", closed, len(now), r)
		}
	}
}

// TestKnownEnd: what is known of the end of a log is said.
func TestKnownEnd(t *testing.T) {
	content, truth := saved(t, nil, true, suffix{1, 12, 1, 2, 200 << 10}, suffix{13, 16, 3, 15, 100})
	cut := maps.Clone(content)
	cut["00003.wal"] = cut["00003.wal"][:len(cut["00003.wal"])-10_000]
	if r, now := repaired(t, nil, cut, truth); r.Loses() || !maps.Equal(now, truth) {
		t.Errorf("cut behind its end: %d entries: %+v", len(now), r)
	}
	delete(content, "00003.wal")
	if r, _ := repaired(t, nil, content, truth); r.Lost == nil || *r.Lost != (Range{11, 15, 5}) || !r.More || r.Stale {
		t.Errorf("the last file is missing: %+v", r)
	}
}
