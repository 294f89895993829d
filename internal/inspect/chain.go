package inspect

import (
	"fmt"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/chain"
)

// link is what the chain of files needs to know of one.
type link struct {
	file   *File
	header entryfile.Header
	first  uint64 // of its own entries, those that do not count among them; 0: none
	last   uint64
}

// note keeps what the chain needs to know of a file that belongs to the log.
func (l *Log) note(s *scan) {
	if s.foreign || !s.ok || s.file.Role != RoleLive {
		return
	}
	k := link{file: s.file, header: s.header}
	if len(s.entries) > 0 {
		k.first, k.last = s.first, s.last()
	}
	l.chain = append(l.chain, k)
}

// checkChain asks whether the files follow one another, with none missing.
func (l *Log) checkChain() {
	m := &l.meta
	last := uint64(0)
	for _, f := range l.Files {
		last = max(last, f.Number)
	}
	if l.Meta != nil && m.Durable.File >= m.FirstFile && last < m.Durable.File {
		l.addMissing(m.Durable.File, "wal.meta names it as the one that the log ends in")
	}
	for k, c := range l.chain {
		before := link{}
		if k > 0 {
			before = l.chain[k-1]
		}
		l.checkLink(before, c)
		l.checkUnsealed(c, k == len(l.chain)-1)
	}
	if l.Meta != nil {
		l.checkGap()
	}
}

// checkGap asks whether what counts of the files follows one another.
func (l *Log) checkGap() {
	all := chain.New(l.meta.Compacted.Index)
	for _, c := range l.chain {
		held := chain.Range{First: c.first, Last: c.last}
		if c.file.Role != RoleLive {
			held = chain.Range{}
		}
		all.Add(held)
	}
	for _, gap := range all.Gaps() {
		first, last := gap.Missing.First, gap.Missing.Last
		l.add(Problem{Severity: Damage, Kind: KindGap, File: l.chain[gap.File].file.Name, Offset: entryfile.DataStart, First: first, Last: last, Heal: healFile,
			What: fmt.Sprintf("the file begins at entry %d, but those before it end at %d", last+1, first-1)})
	}
}

// checkLink compares a file with the one in front of it; zero: there is none.
func (l *Log) checkLink(before, c link) {
	h := &c.header
	chain := func(file *File, what string, args ...any) {
		l.add(Problem{Severity: Damage, Kind: KindChain, File: file.Name, What: fmt.Sprintf(what, args...), Heal: healFile})
	}
	switch {
	case before.file == nil && l.Meta != nil && h.Prev < l.meta.FirstFile:
	case before.file == nil && l.Meta == nil:
	case before.file == nil || h.Prev > before.header.Number:
		if !l.present(h.Prev) {
			l.addMissing(h.Prev, fmt.Sprintf("%s follows it", c.file.Name))
		}
	case h.Prev < before.header.Number:
		chain(c.file, "the file follows number %d, but %d is there: one of them is of another time", h.Prev, before.header.Number)
	case h.PrevSalt != before.header.Salt:
		chain(c.file, "the file does not follow %s, but another of that number: one of them is of another copy of the log", before.file.Name)
	case h.PrevSealed && !before.header.Sealed:
		chain(before.file, "the file had been sealed before %s was begun: it is of an earlier time", c.file.Name)
	}
}

// checkUnsealed: in a log that was closed cleanly only the last file goes on.
func (l *Log) checkUnsealed(c link, last bool) {
	m := &l.meta
	if l.Meta == nil || !m.Clean || c.header.Sealed {
		return
	}
	p := Problem{Severity: Damage, Kind: KindChain, File: c.file.Name, Heal: healFile}
	switch {
	case !last:
		p.What = "the log was closed cleanly, but this file is neither sealed nor the last"
	case c.file.Number == m.Durable.File && c.file.End > m.Durable.Offset:
		p.Offset = m.Durable.Offset
		p.What = fmt.Sprintf("the data ends at %d, but at the last close it ended at %d", c.file.End, m.Durable.Offset)
	default:
		return
	}
	l.add(p)
}

// present reports whether there is a file with that number, in whatever state.
func (l *Log) present(number uint64) bool {
	for _, f := range l.Files {
		if f.Number == number {
			return true
		}
	}
	return false
}

func (l *Log) addMissing(number uint64, why string) {
	name := fileName(number)
	for _, p := range l.Problems {
		if p.Kind == KindMissing && p.File == name {
			return
		}
	}
	heal := healFile
	if l.Meta != nil && l.meta.Clean && !l.meta.Encrypted {
		heal += "; if Dgraph has opened the directory since, `mmapwal import --from dgraph` reads it"
	}
	l.add(Problem{Severity: Damage, Kind: KindMissing, File: name, What: "the file is missing: " + why, Heal: heal})
}
