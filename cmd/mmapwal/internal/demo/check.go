package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	chunkEntries = 1024
	chunkBytes   = 1 << 20
	maxProblems  = 5 // of each log are told
)

// record is what the parent knows about the writes.
type record struct {
	session session
	places  []uint64 // places[i] is the index at which write i+1 was acknowledged
	sent    []int    // sent[i] is how often write i+1 was sent
}

// CheckError says what is wrong with the logs.
type CheckError struct{ Problems []string }

// Error implements error.
func (e *CheckError) Error() string {
	return "the check failed:\n  " + strings.Join(e.Problems, "\n  ")
}

// logFigures are of one log.
type logFigures struct {
	node    uint64
	entries uint64
	files   int
	bytes   int64
}

// checkLogs reads the logs in dirs, and says whether each holds what it must and
// they agree. The error is a *CheckError if that is not so.
func checkLogs(ctx context.Context, dirs []string, rec *record) (figures []logFigures, err error) {
	var audits []*audit
	defer func() {
		for _, a := range audits {
			err = errors.Join(err, a.wal.Close())
		}
	}()
	for i, dir := range dirs {
		a, err := openAudit(uint64(i+1), dir, rec)
		if err != nil {
			return nil, err
		}
		audits = append(audits, a)
		f, err := a.figures(dir)
		if err != nil {
			return nil, err
		}
		figures = append(figures, f)
	}
	return figures, runAudits(ctx, audits)
}

// runAudits reads all logs side by side.
func runAudits(ctx context.Context, audits []*audit) error {
	differ := ""
	for more := true; more; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		more = false
		var entries []*raftpb.Entry
		for _, a := range audits {
			e, err := a.next()
			if err != nil {
				return err
			}
			if e != nil {
				entries = append(entries, e)
				more = true
			}
		}
		if differ == "" && len(entries) == len(audits) {
			differ = compare(entries)
		}
	}
	return verdict(audits, differ)
}

// compare says how entries that should be the same differ.
func compare(entries []*raftpb.Entry) string {
	a := entries[0]
	for i, b := range entries[1:] {
		if a.GetIndex() != b.GetIndex() || a.GetTerm() != b.GetTerm() || a.GetType() != b.GetType() || !bytes.Equal(a.GetData(), b.GetData()) {
			return fmt.Sprintf("the logs of node 1 and node %d disagree at index %d (terms %d and %d)", i+2, a.GetIndex(), a.GetTerm(), b.GetTerm())
		}
	}
	return ""
}

// verdict gathers what was found.
func verdict(audits []*audit, differ string) error {
	var problems []string
	for _, a := range audits {
		a.finish()
		problems = append(problems, a.problems...)
	}
	if differ != "" {
		problems = append(problems, differ)
	}
	if len(problems) > 0 {
		return &CheckError{Problems: problems}
	}
	return nil
}

// audit reads the committed entries of one log and checks them.
type audit struct {
	node     uint64
	wal      *mmapwal.DiskStorage
	rec      *record
	machine  machine
	copies   []int // copies[i] is how many entries hold write i+1
	at       uint64
	term     uint64
	commit   uint64
	chunk    []*raftpb.Entry
	problems []string
	more     int // problems that are not told
}

// openAudit opens a log without changing it.
func openAudit(node uint64, dir string, rec *record) (*audit, error) {
	wal, err := mmapwal.Open(dir, &mmapwal.Options{ReadOnly: true, Logger: logger(os.Stderr)})
	if err != nil {
		return nil, fmt.Errorf("open the log of node %d: %w", node, err)
	}
	a := &audit{node: node, wal: wal, rec: rec, machine: machine{session: rec.session.id}, copies: make([]int, len(rec.sent))}
	state, _, err := wal.InitialState()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the state of node %d: %w", node, err), wal.Close())
	}
	a.commit = state.GetCommit()
	if !wal.Stats().Recovery.Clean {
		a.problem("it was not closed")
	}
	if last := wal.Stats().LastIndex; last < a.commit {
		a.problem("it ends at %d, before the commit index %d", last, a.commit)
		a.commit = last
	}
	return a, nil
}

// figures returns what the report says about the log.
func (a *audit) figures(dir string) (logFigures, error) {
	f := logFigures{node: a.node, entries: a.commit, files: a.wal.NumLogFiles()}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return f, fmt.Errorf("list the log of node %d: %w", a.node, err)
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return f, fmt.Errorf("list the log of node %d: %w", a.node, err)
		}
		f.bytes += info.Size()
	}
	return f, nil
}

func (a *audit) problem(format string, args ...any) {
	if len(a.problems) >= maxProblems {
		a.more++
		return
	}
	a.problems = append(a.problems, fmt.Sprintf("the log of node %d: %s", a.node, fmt.Sprintf(format, args...)))
}

// next returns the next committed entry, checked; nil at the end.
func (a *audit) next() (*raftpb.Entry, error) {
	if a.at == a.commit {
		return nil, nil
	}
	if len(a.chunk) == 0 {
		var err error
		lo := a.at + 1
		if a.chunk, err = a.wal.Entries(lo, min(lo+chunkEntries, a.commit+1), chunkBytes); err != nil {
			return nil, fmt.Errorf("read the log of node %d at %d: %w", a.node, lo, err)
		}
	}
	e := a.chunk[0]
	a.chunk = a.chunk[1:]
	a.at++
	a.check(e)
	return e, nil
}

// check checks one entry.
func (a *audit) check(e *raftpb.Entry) {
	if e.GetIndex() != a.at || e.GetTerm() < a.term {
		a.problem("entry %d of term %d stands at %d, after term %d", e.GetIndex(), e.GetTerm(), a.at, a.term)
	}
	a.term = e.GetTerm()
	seq, applied, err := a.machine.apply(e)
	switch {
	case err != nil:
		a.problem("%v", err)
	case seq > uint64(len(a.copies)):
		a.problem("entry %d: write %d was never sent", a.at, seq)
	case seq > 0:
		a.checkWrite(e, seq, applied)
	}
}

// checkWrite checks an entry that holds a write.
func (a *audit) checkWrite(e *raftpb.Entry, seq uint64, applied bool) {
	if !bytes.Equal(e.GetData(), a.rec.session.payload(seq)) {
		a.problem("entry %d: write %d has other data than was sent", a.at, seq)
	}
	a.copies[seq-1]++
	if sent := a.rec.sent[seq-1]; a.copies[seq-1] > sent {
		a.problem("entry %d: write %d is there %d times, and was sent %d times", a.at, seq, a.copies[seq-1], sent)
	}
	if applied && seq <= uint64(len(a.rec.places)) && a.rec.places[seq-1] != a.at {
		a.problem("write %d was acknowledged at index %d, and is applied at %d", seq, a.rec.places[seq-1], a.at)
	}
}

// finish checks what can be said only when all entries were read.
func (a *audit) finish() {
	acked := uint64(len(a.rec.places))
	if n := a.machine.last(); n < acked {
		a.problem("%d writes were acknowledged, and %d are applied; write %d is missing, or not in its place", acked, n, n+1)
	}
	if a.more > 0 {
		a.problems = append(a.problems, fmt.Sprintf("the log of node %d: %d more problems", a.node, a.more))
	}
}
