package realdisk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// entryData is the data of an entry: now and then large, so that files fill.
func entryData(i, term uint64) []byte {
	size := int((i*7919 + term*104729) % 300)
	switch (i + term) % 23 {
	case 0:
		size += 150_000
	case 7, 14:
		size += 5_000
	}
	return oracle.Data(i, term, size)
}

// options are those of all logs here: small files, no output. Whether a log is
// encrypted hangs on what it retains, so that four of ten are.
func options(retain uint64) *mmapwal.Options {
	o := &mmapwal.Options{FileDataSize: 1 << 20, RetainEntries: retain, Logger: slog.New(slog.DiscardHandler)}
	if retain%3 != 0 {
		o.Key = bytes.Repeat([]byte{7}, 32)
	}
	return o
}

// step is one thing that the saver does: a call of the log, or the like.
type step struct {
	kind string // "call", "sync", "reopen"
	op   oracle.Op
}

// history picks the steps of a saver on a log that holds m. It is a function of
// its arguments.
func history(seed uint64, steps int, m *oracle.Model) []step {
	r := rand.New(rand.NewPCG(seed, 1))
	all := []step{{kind: "reopen"}}
	for range steps {
		s := step{kind: "call"}
		switch r.IntN(24) {
		case 0:
			s.kind = "reopen"
		case 1:
			s.kind = "sync"
		default:
			s.op = pick(r, m)
			m = s.op.Done(m)
		}
		all = append(all, s)
	}
	return all
}

func pick(r *rand.Rand, m *oracle.Model) oracle.Op {
	switch r.IntN(12) {
	case 0:
		return oracle.Op{Truncate: 1 + r.Uint64N(m.Snap[0]+1)}
	case 1:
		if m.Snap[0] > m.Base[0] {
			return oracle.Op{Compact: m.Base[0] + 1 + r.Uint64N(m.Snap[0]-m.Base[0])}
		}
	}
	m = m.Clone()
	m.Hard[2] = max(m.Hard[2], m.Snap[0]) // a hard state may not have been stored yet
	return oracle.Next(r, m)
}

// noted is what wal.meta stores without a sync, unless term or vote change.
type noted struct {
	hard       [3]uint64
	checkpoint uint64
}

func notedOf(m *oracle.Model) noted { return noted{m.Hard, m.Checkpoint} }

// promise is what a log may hold: one of the models, with the hard state and
// the checkpoint of one of those noted.
type promise struct {
	m      *oracle.Model // after all calls that returned
	models []*oracle.Model
	noted  []noted
}

// settled promises m, all of it.
func settled(m *oracle.Model) promise {
	return promise{m, []*oracle.Model{m}, []noted{notedOf(m)}}
}

// started adds what may be there when a step was begun.
func (p promise) started(s step) promise {
	if s.kind != "call" {
		return p
	}
	outcomes := s.op.Outcomes(p.m)
	p.models = slices.Concat(p.models, outcomes[1:])
	if s.op.Truncate > 0 {
		p.models = append(p.models, cleared(p.models, s.op.Truncate)...)
	}
	last := notedOf(outcomes[len(outcomes)-1])
	if !slices.Contains(p.noted, last) {
		p.noted = append(slices.Clone(p.noted), last)
	}
	return p
}

// done drops what cannot be there any more when a step has returned.
func (p promise) done(s step) promise {
	if s.kind != "call" {
		return settled(p.m)
	}
	op, begun := &s.op, p.started(s)
	m := op.Done(p.m)
	next := promise{m, []*oracle.Model{m}, begun.noted}
	switch {
	case op.Truncate > 0 && op.Truncate <= max(p.m.Cleared, p.m.Base[0]+1): // nothing to do
	case op.Truncate > 0:
		next.models = append(cleared(p.models, op.Truncate), m)
		next.noted = []noted{notedOf(m)}
	case op.Create > 0 || op.Snap[0] > 0 || op.Compact > 0: // wal.meta was synced on the way
		next.noted = []noted{notedOf(p.m), notedOf(m)}
	}
	if m.Hard[0] != p.m.Hard[0] || m.Hard[1] != p.m.Hard[1] {
		next.noted = []noted{notedOf(m)}
	}
	return next
}

// promisesOf returns what is promised after each step. Of the log, which was
// found to hold m, p was promised before; it is settled by being opened.
func promisesOf(p promise, m *oracle.Model, steps []step) []promise {
	all := []promise{p}
	p.m = m
	for _, s := range steps {
		p = p.done(s)
		all = append(all, p)
	}
	return all
}

// cleared returns the models after a TruncateEntriesUntil.
func cleared(models []*oracle.Model, below uint64) (all []*oracle.Model) {
	for _, m := range models {
		m = m.Clone()
		m.Cleared = max(m.Cleared, below)
		all = append(all, m)
	}
	return all
}

// errLost: the log does not hold what was promised, or holds what nobody saved.
var errLost = errors.New("the log is not what was promised")

// check compares a log with what was promised, and returns what it holds.
func (p promise) check(d *mmapwal.DiskStorage) (*oracle.Model, error) {
	got, err := oracle.Read(d)
	if err != nil {
		return nil, fmt.Errorf("%w: read: %w", errLost, err)
	}
	for _, m := range slices.Backward(p.models) {
		if !m.SameEntries(got) || !p.fits(m, notedOf(got)) {
			continue
		}
		want := m.Clone()
		want.Hard, want.Checkpoint = got.Hard, got.Checkpoint
		if err = want.CheckContent(d); err == nil {
			return want, nil
		}
	}
	var wanted []string
	for _, m := range p.models {
		wanted = append(wanted, m.Brief())
	}
	return nil, fmt.Errorf("%w: it is\n%s\n(%v), want one of\n%s\nwith one of %v", errLost, got.Brief(), err, strings.Join(wanted, "\n"), p.noted)
}

// fits reports whether got was noted, with its commit index put inside the log.
func (p promise) fits(m *oracle.Model, got noted) bool {
	return slices.ContainsFunc(p.noted, func(n noted) bool {
		if n.hard[0] > 0 {
			n.hard[2] = min(max(n.hard[2], m.Snap[0]), m.Last())
		}
		return n == got
	})
}

// found is what the check of an image found besides an error.
type found struct {
	m       *oracle.Model // before the check saved to it
	unclean bool
	torn    int64
	lost    bool
}

// openLog opens a log. If it was just closed here, a process that another test
// is starting may hold the lock for a moment, from its fork to its exec.
func openLog(dir string, retain uint64) (*mmapwal.DiskStorage, error) {
	for wait := time.Millisecond; ; wait *= 2 {
		d, err := mmapwal.Open(dir, options(retain))
		if !errors.Is(err, mmapwal.ErrLocked) || wait > time.Second {
			return d, err
		}
		time.Sleep(wait)
	}
}

// checkLog opens the log in dir, compares it with p, saves to it, and opens it
// again: a log that was recovered must be one that can be used.
func checkLog(dir string, p promise, retain uint64) (found, error) {
	d, err := openLog(dir, retain)
	if err != nil {
		return found{}, err
	}
	recovery := d.Stats().Recovery
	f := found{unclean: !recovery.Clean, torn: recovery.TornBytes}
	m, err := p.check(d)
	f.m = m
	if err != nil {
		f.lost = errors.Is(err, errLost)
		return f, errors.Join(err, d.Close())
	}
	term := max(m.Hard[0], m.Term(m.Last())) + 1
	op := oracle.Op{Hard: [3]uint64{term, 1, m.Hard[2]}, From: m.Last() + 1, Terms: []uint64{term}}
	if err := errors.Join(op.Do(d, m), d.Close()); err != nil {
		return f, fmt.Errorf("save after recovery: %w", err)
	}
	if d, err = openLog(dir, retain); err != nil {
		return f, fmt.Errorf("opened again: %w", err)
	}
	_, err = settled(op.Done(m)).check(d)
	return f, errors.Join(err, d.Close())
}
