package demo

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// fixture is three logs and the record of what was acknowledged.
type fixture struct {
	t    *testing.T
	logs [nodes][]*raftpb.Entry
	rec  *record
}

// newFixture returns the logs of an honest group with some writes. Write 4 was
// sent twice and stands in the logs twice, as entries 5 and 7.
func newFixture(t *testing.T) *fixture {
	s := newSession(3)
	f := &fixture{t: t, rec: &record{session: s}}
	for i := range f.logs {
		f.logs[i] = []*raftpb.Entry{
			newEntry(1, 1, nil),
			newEntry(2, 1, s.payload(1)),
			newEntry(3, 1, s.payload(2)),
			newEntry(4, 1, s.payload(3)),
			newEntry(5, 1, s.payload(4)),
			newEntry(6, 2, nil),
			newEntry(7, 2, s.payload(4)),
			newEntry(8, 2, s.payload(5)),
			newEntry(9, 2, s.payload(6)),
		}
	}
	f.rec.places = []uint64{2, 3, 4, 5, 8, 9}
	f.rec.sent = []int{1, 1, 1, 2, 1, 1}
	return f
}

func newEntry(index, term uint64, data []byte) *raftpb.Entry {
	return &raftpb.Entry{Index: &index, Term: &term, Data: data}
}

// all changes the three logs alike.
func (f *fixture) all(change func(es []*raftpb.Entry) []*raftpb.Entry) {
	for i := range f.logs {
		f.logs[i] = change(f.logs[i])
	}
}

// check writes the logs and checks them.
func (f *fixture) check() ([]logFigures, error) {
	f.t.Helper()
	dir := f.t.TempDir()
	var dirs []string
	for i, es := range f.logs {
		d := filepath.Join(dir, fmt.Sprint(i))
		f.write(d, es)
		dirs = append(dirs, d)
	}
	return checkLogs(f.t.Context(), dirs, f.rec)
}

func (f *fixture) write(dir string, es []*raftpb.Entry) {
	f.t.Helper()
	wal, err := mmapwal.Open(dir, &mmapwal.Options{FileDataSize: fileDataSize, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.t.Fatal(err)
	}
	last := es[len(es)-1]
	state := &raftpb.HardState{Term: last.Term, Commit: last.Index}
	if err := errors.Join(wal.Save(state, es, nil), wal.Close()); err != nil {
		f.t.Fatal(err)
	}
}

func TestCheckHonestLogs(t *testing.T) {
	figures, err := newFixture(t).check()
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range figures {
		if f.node != uint64(i+1) || f.entries != 9 || f.files != 1 || f.bytes == 0 {
			t.Errorf("figures %+v", f)
		}
	}
}

func TestCheckLogsOfDifferentLengths(t *testing.T) {
	f := newFixture(t)
	f.logs[1] = append(f.logs[1], newEntry(10, 3, nil))
	if _, err := f.check(); err != nil {
		t.Errorf("one log with a longer committed part: %v", err)
	}
}

func TestCheckFinds(t *testing.T) {
	s := newSession(3)
	for name, test := range map[string]struct {
		spoil func(f *fixture)
		want  string
	}{
		"a lost write": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { es[3].Data = nil; return es })
		}, "write 3 is missing"},
		"a lost write at the end": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { return es[:8] })
		}, "6 writes were acknowledged, and 5 are applied"},
		"a write lost in one log": {func(f *fixture) {
			f.logs[2] = f.logs[2][:8]
		}, "the log of node 3: 6 writes were acknowledged, and 5 are applied"},
		"a write lost and written again later": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { es[4].Data = nil; return es })
		}, "write 4 was acknowledged at index 5, and is applied at 7"},
		"a duplicated write": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { return append(es, newEntry(10, 2, s.payload(2))) })
		}, "write 2 is there 2 times, and was sent 1 times"},
		"a write duplicated once too often": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { return append(es, newEntry(10, 2, s.payload(4))) })
		}, "write 4 is there 3 times, and was sent 2 times"},
		"reordered writes": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry {
				es[1].Data, es[2].Data = es[2].Data, es[1].Data
				return es
			})
		}, "write 2 is missing, or not in its place"},
		"a moved write": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry {
				es[0].Data, es[1].Data = es[1].Data, es[0].Data
				return es
			})
		}, "write 1 was acknowledged at index 2, and is applied at 1"},
		"changed data": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { es[2].Data[99]++; return es })
		}, "entry 3: write 2 has other data than was sent"},
		"a write that was never sent": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { return append(es, newEntry(10, 2, s.payload(7))) })
		}, "write 7 was never sent"},
		"a write of another run": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { es[8].Data = newSession(4).payload(6); return es })
		}, "is not of session"},
		"half a write": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { es[8].Data = es[8].Data[:10]; return es })
		}, "too few"},
		"a conf change": {func(f *fixture) {
			f.all(func(es []*raftpb.Entry) []*raftpb.Entry { es[5].Type = raftpb.EntryConfChange.Enum(); return es })
		}, "is not written here"},
		"terms that disagree": {func(f *fixture) {
			f.logs[1][5].Term = new(uint64(1))
		}, "the logs of node 1 and node 2 disagree at index 6 (terms 2 and 1)"},
		"data that disagrees": {func(f *fixture) {
			f.logs[2][6].Data = nil
		}, "the logs of node 1 and node 3 disagree at index 7"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			test.spoil(f)
			_, err := f.check()
			var found *CheckError
			if !errors.As(err, &found) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("want %q, got: %v", test.want, err)
			}
		})
	}
}

func TestCheckFindsLogThatWasNotClosed(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	wal, err := mmapwal.Open(dir, &mmapwal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := wal.Save(&raftpb.HardState{Term: new(uint64(2)), Commit: new(uint64(9))}, f.logs[0], nil); err != nil {
		t.Fatal(err)
	}
	_, err = checkLogs(t.Context(), []string{dir}, f.rec)
	if err == nil || !strings.Contains(err.Error(), "it was not closed") {
		t.Errorf("got: %v", err)
	}
	if err := wal.Close(); err != nil {
		t.Error(err)
	}
}

func TestCheckTellsFewProblems(t *testing.T) {
	f := newFixture(t)
	f.rec.sent = make([]int, 6)
	_, err := f.check()
	var found *CheckError
	if !errors.As(err, &found) || len(found.Problems) != nodes*(maxProblems+1) || !strings.Contains(err.Error(), "2 more problems") {
		t.Errorf("got: %v", err)
	}
}

func TestCheckWithoutLog(t *testing.T) {
	if _, err := checkLogs(t.Context(), []string{t.TempDir()}, newFixture(t).rec); err == nil {
		t.Error("a log that is not there passed")
	}
}
