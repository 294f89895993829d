package repair

import (
	"bytes"
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
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// past is a log that went through what a follower may: its entries are replaced from
// anything on that is not committed, again and deeper, over the borders of small files.
type past struct {
	r     *rand.Rand
	key   []byte
	disk  *damage.Disk
	wal   *mmapwal.DiskStorage
	seed  byte
	err   error
	steps []string

	terms  []uint64 // of all entries, from index 1 on
	sizes  []int
	term   uint64
	commit uint64
	snap   uint64
	closed bool
}

// live makes a log, and ends it with a Close or without.
func live(seed uint64, key []byte) *past {
	p := &past{r: rand.New(rand.NewPCG(seed, 7)), key: key, disk: damage.NewDisk(damage.Dir), term: 2}
	p.open()
	for range 4 + p.r.IntN(10) {
		p.step()
	}
	if p.closed = p.r.IntN(2) == 0; p.closed && p.err == nil {
		p.err = p.wal.Close()
	}
	return p
}

func (p *past) say(format string, args ...any) {
	p.steps = append(p.steps, fmt.Sprintf(format, args...))
}

func (p *past) open() {
	if p.err != nil {
		return
	}
	p.seed++
	o := damage.Options()
	o.Key, o.RetainEntries = bytes.Clone(p.key), uint64(p.r.IntN(2)*5)
	p.wal, p.err = damage.Open(p.disk, p.seed, o)
}

// last returns the index of the last entry.
func (p *past) last() uint64 { return uint64(len(p.terms)) }

func (p *past) step() {
	switch n := p.r.IntN(20); {
	case n < 6:
		p.save(p.last()+1, p.term)
	case n < 13 && p.last() > p.commit:
		p.conflict()
	case n < 15:
		p.advance()
		p.save(p.last()+1, p.term)
	case n < 17 && p.commit > p.snap:
		p.snapshot()
	case n < 18:
		p.say("kill")
		img := p.disk.Image()
		_ = p.wal.Close()
		p.disk.Load(img)
		p.open()
	case n < 19:
		p.say("close")
		p.err = errors.Join(p.err, p.wal.Close())
		p.open()
	}
}

// conflict has a new leader replace entries: with some of a term that was never seen here, too.
func (p *past) conflict() {
	from := p.commit + 1 + p.r.Uint64N(p.last()-p.commit)
	old := p.terms[from-1]
	terms := []uint64{p.term + 2}
	before := uint64(0)
	if from > 1 {
		before = p.terms[from-2]
	}
	if old%2 == 0 && before < old-1 && p.r.IntN(2) == 0 {
		terms = []uint64{old - 1, p.term + 2}
	}
	p.term += 2
	p.advance()
	p.save(from, terms...)
}

// advance commits some of what is there, but for what is replaced next.
func (p *past) advance() {
	if p.r.IntN(2) == 0 && p.last() > p.commit {
		p.commit += p.r.Uint64N(p.last() - p.commit)
	}
}

// save stores entries, the last ones of the last term.
func (p *past) save(from uint64, terms ...uint64) {
	if p.err != nil {
		return
	}
	from = max(from, p.commit+1)
	p.terms, p.sizes = p.terms[:from-1], p.sizes[:from-1]
	var es []*raftpb.Entry
	for k, term := range terms {
		if from > 1 && len(p.terms) > 0 && p.terms[len(p.terms)-1] > term {
			continue
		}
		n := 1
		if k == len(terms)-1 {
			n += p.r.IntN(6)
		}
		for range n {
			size := p.r.IntN(100)
			if p.r.IntN(3) == 0 {
				size = 100<<10 + p.r.IntN(200<<10)
			}
			p.terms, p.sizes = append(p.terms, term), append(p.sizes, size)
			i := p.last()
			es = append(es, &raftpb.Entry{Index: &i, Term: &term, Data: []byte(dataOf(i, term, size))})
		}
	}
	p.say("save %d to %d of %v, commit %d", from, p.last(), terms, p.commit)
	p.err = p.wal.Save(&raftpb.HardState{Term: new(p.term), Vote: new(uint64(1)), Commit: new(p.commit)}, es, nil)
}

func (p *past) snapshot() {
	if p.err != nil {
		return
	}
	p.snap += 1 + p.r.Uint64N(p.commit-p.snap)
	p.say("snapshot %d", p.snap)
	p.err = p.wal.CreateSnapshot(p.snap, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}, []byte("state"))
}

func dataOf(i, term uint64, size int) string {
	return fmt.Sprintf("entry %d of term %d %s", i, term, strings.Repeat(string(rune('a'+(i+term)%26)), size))
}

// entries returns what the log must hold behind its snapshot, and in front of it.
func (p *past) entries() (behind, covered map[uint64]said) {
	behind, covered = make(map[uint64]said), make(map[uint64]said)
	for k, term := range p.terms {
		i := uint64(k) + 1
		e := said{term, dataOf(i, term, p.sizes[k])}
		if i > p.snap {
			behind[i] = e
		} else {
			covered[i] = e
		}
	}
	return behind, covered
}

// spoil damages an image in some places, those that are in use above all.
func spoil(r *rand.Rand, img damage.Image) (damage.Image, []string) {
	var how []string
	for range 1 + r.IntN(2)*r.IntN(3) {
		names := slices.DeleteFunc(img.Names(), func(n string) bool { return strings.HasSuffix(n, entryfile.SpareSuffix) })
		name := names[r.IntN(len(names))]
		if r.IntN(3) > 0 { // entry files above all
			name = names[r.IntN(max(len(names)-1, 1))]
		}
		p := img[name].Bytes()
		if len(p) == 0 {
			continue
		}
		at := placeIn(r, p)
		switch kind := r.IntN(20); {
		case kind < 8:
			p[at] ^= 1 << r.IntN(8)
			how = append(how, fmt.Sprintf("%s: a bit at %d", name, at))
		case kind < 12:
			at &^= 511
			clear(p[at:min(at+512, len(p))])
			how = append(how, fmt.Sprintf("%s: sector at %d", name, at))
		case kind < 14:
			at &^= page.Size - 1
			clear(p[at:min(at+page.Size, len(p))])
			how = append(how, fmt.Sprintf("%s: page at %d", name, at))
		case kind < 17:
			if p = p[:at]; r.IntN(4) == 0 {
				p = p[:len(p)&^(page.Size-1)]
			}
			how = append(how, fmt.Sprintf("%s: cut at %d", name, len(p)))
		case kind < 18 && len(p) > entryfile.DataStart:
			clear(p[entryfile.HeaderPages[0]:entryfile.DataStart])
			how = append(how, fmt.Sprintf("%s: header pages", name))
		case kind < 19 && name != "wal.meta":
			img = img.With(name, nil)
			how = append(how, fmt.Sprintf("%s: removed", name))
			continue
		}
		img = img.With(name, img[name].With(p))
	}
	return img, how
}

// placeIn returns an offset in a file, in use if the luck is good.
func placeIn(r *rand.Rand, p []byte) int {
	if len(p) <= entryfile.DataStart {
		return r.IntN(min(len(p), 2*page.Size))
	}
	used := len(bytes.TrimRight(p, "\x00"))
	switch n := r.IntN(10); {
	case n < 2:
		return r.IntN(20 * entryfile.SlotBytes)
	case n < 4:
		return int(entryfile.HeaderPages[r.IntN(2)]) + r.IntN(150)
	case n < 5:
		return entryfile.DataStart + r.IntN(64)
	case n < 7 && used > entryfile.DataStart: // where a record begins
		var at []int
		salt := page.Order.Uint32(p[entryfile.HeaderPages[0]+56:])
		for o := int64(entryfile.DataStart); ; {
			rec, ok := entryfile.InspectRecord(p, o, int64(len(p)), salt, true)
			if !ok {
				break
			}
			at, o = append(at, int(o)), rec.End()
		}
		if len(at) > 0 {
			return at[r.IntN(len(at))] + r.IntN(40)
		}
	case n < 9 && used > entryfile.DataStart:
		return entryfile.DataStart + r.IntN(used-entryfile.DataStart)
	}
	return r.IntN(len(p))
}

// verdicts counts what became of damaged logs.
type verdicts map[string]int

// TestOracle: what a repair says is held against what has changed. N=n takes n logs, and SEED is
// where it begins.
func TestOracle(t *testing.T) {
	count, seed := 40/stride+1, uint64(1)
	if n, err := strconv.Atoi(os.Getenv("N")); err == nil {
		count = n
	}
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	sum := make(verdicts)
	for k := range uint64(count) {
		var key []byte
		if (seed+k)%4 == 3 {
			key = bytes.Repeat([]byte("k"), 32)
		}
		p := live(seed+k, key)
		must(t, p.err)
		img := p.disk.Image()
		for n := range uint64(8) {
			damaged, how := spoil(rand.New(rand.NewPCG(seed+k, n)), img)
			verdict, wrong := p.judge(damaged)
			sum[verdict]++
			if wrong != "" {
				t.Errorf("N=1 SEED=%d go test ./internal/repair -run TestOracle # damage %d\n%s\n%s\n%s\nclosed %v, encrypted %v",
					seed+k, n, wrong, strings.Join(p.steps, "; "), strings.Join(how, "; "), p.closed, key != nil)
				return
			}
		}
	}
	t.Logf("%v", sum)
}

// judge repairs a damaged log, and compares what it holds with what it held.
func (p *past) judge(img damage.Image) (verdict, wrong string) {
	disk := damage.NewDisk(damage.Dir)
	disk.Load(img)
	o := Options{Host: host.Host{FS: disk, Random: rand.NewChaCha8([32]byte{99}), Go: func(f func()) { f() }, After: host.Never}}
	if p.key != nil {
		o.Wrapper, _ = encryption.NewKeyWrapper(p.key)
	}
	plain, plainErr := p.read(disk, true)
	plan, err := Rehearse(context.Background(), damage.Dir, o)
	if errors.Is(err, mmapwal.ErrForeign) {
		return "foreign", ""
	}
	if err != nil {
		return "", fmt.Sprintf("rehearse: %v", err)
	}
	r := &plan.Report
	switch {
	case r.Refused != "":
		return "refused", errorText(plan.Close())
	case !r.Needed && plainErr != nil:
		return "", fmt.Sprintf("nothing to repair, but Open says: %v", plainErr)
	}
	after, err := plan.work.run(context.Background(), plan.before)
	if err != nil || after.Count(inspect.Damage) > len(r.Remains) {
		return "", fmt.Sprintf("not as rehearsed: %v, %+v", err, r)
	}
	if err := plan.Close(); err != nil {
		return "", err.Error()
	}
	now, err := p.read(disk, false)
	if err != nil {
		return "", fmt.Sprintf("after the repair: %v: %+v", err, r)
	}
	return p.compare(r, now, plain, plainErr)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// compare holds the words against what has changed. What Open takes as a torn write, without
// a word, the format cannot tell.
func (p *past) compare(r *Report, now, plain map[uint64]said, plainErr error) (verdict, wrong string) {
	behind, covered := p.entries()
	for i, e := range now {
		if was, ok := covered[i]; ok && was != e {
			return "", fmt.Sprintf("entry %d, which the snapshot covers, is of term %d now", i, e.term)
		}
	}
	maps.DeleteFunc(now, func(i uint64, _ said) bool { return i <= p.snap })
	if plainErr == nil {
		maps.DeleteFunc(plain, func(i uint64, _ said) bool { return i <= p.snap })
		if maps.Equal(plain, now) && !maps.Equal(plain, behind) && !p.closed {
			return "torn", ""
		}
	}
	if wrong := wordsWrong(r, behind, now); wrong != "" {
		return "", fmt.Sprintf("%s\n%+v", wrong, r)
	}
	switch {
	case r.Lost != nil:
		return "lost", ""
	case r.Loses() && maps.Equal(now, behind):
		return "doubt without reason", ""
	case r.Loses():
		return "doubt", ""
	case r.Needed:
		return "healed", ""
	}
	return "nothing to do", ""
}

// read returns the entries of the log on a disk.
func (p *past) read(disk *damage.Disk, readOnly bool) (all map[uint64]said, err error) {
	o := damage.Options()
	o.Key, o.ReadOnly = bytes.Clone(p.key), readOnly
	wal, err := damage.Open(disk, 200, o)
	if err != nil {
		return nil, err
	}
	defer wal.Close()
	all = make(map[uint64]said)
	first, _ := wal.FirstIndex()
	last, _ := wal.LastIndex()
	if last < first {
		return all, nil
	}
	es, err := wal.Entries(first, last+1, 1<<40)
	for _, e := range es {
		all[e.GetIndex()] = said{e.GetTerm(), string(e.Data)}
	}
	return all, err
}
