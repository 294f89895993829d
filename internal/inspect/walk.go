package inspect

import (
	"fmt"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// readRecords finds all whole records, and where they end.
func (s *scan) readRecords() error {
	h, from, limit := &s.header, int64(entryfile.DataStart), s.limit()
	if !h.Sealed {
		if err := s.walk(from, limit, true); err != nil {
			return err
		}
		return s.findEnd()
	}
	s.readSpared()
	from = max(from, h.Seal.Punched)
	s.end = min(h.Seal.End, limit)
	if !s.log.opts.Check && s.skim(from) {
		return nil
	}
	if err := s.walk(from, s.end, true); err != nil {
		return err
	}
	s.ended = s.hasEnd()
	return nil
}

// hasEnd reports whether the last record says that no more follow.
func (s *scan) hasEnd() bool {
	n := len(s.records)
	return n > 0 && s.records[n-1].Ends
}

// skim reads the headers of the records of a sealed file only. It reports whether
// they fit together, up to the end.
func (s *scan) skim(from int64) bool {
	if err := s.walk(from, s.end, false); err != nil || len(s.gaps) > 0 || s.end != s.header.Seal.End {
		return false
	}
	s.ended = s.hasEnd()
	for k := 1; k < len(s.records); k++ {
		if s.records[k].Index > s.records[k-1].Index+1 {
			return false
		}
	}
	seal := &s.header.Seal
	n := len(s.records)
	return n == 0 || s.records[0].Index >= seal.First && s.records[n-1].Index >= seal.Last
}

// readSpared reads the records that were spared when those around them were
// punched out.
func (s *scan) readSpared() {
	seal := &s.header.Seal
	for _, o := range seal.Others {
		if o.Record >= seal.Punched {
			continue
		}
		r, ok := entryfile.InspectRecord(s.mem, o.Record, min(seal.End, s.limit()), s.header.Salt, true)
		if ok && r.Index == o.Index {
			s.spared = append(s.spared, r)
			continue
		}
		s.add(Problem{Severity: Damage, Kind: KindRecord, Offset: o.Record, First: o.Index, Last: o.Index,
			What: "the record, which was spared when data was cleared, is damaged", Heal: healEntries})
		s.paint(o.Record, o.Record+entryfile.RecordHeaderBytes, Damaged)
	}
}

// step is after how many bytes the progress is told.
const step = 4 << 20

// walk reads the records of [from, limit). Where one is not whole it looks for the
// next one that is.
func (s *scan) walk(from, limit int64, sum bool) error {
	s.records, s.gaps, s.sums = s.records[:0], s.gaps[:0], nil
	told := from
	for at := from; at < limit; {
		if at-told >= step {
			told = at
			s.log.progress(at)
			if err := s.log.ctx.Err(); err != nil {
				return err
			}
		}
		r, ok, err := s.recordAt(at, limit, sum)
		if err != nil {
			return err
		}
		if ok {
			s.records = append(s.records, r)
			if r.Ends && !s.header.Sealed {
				return nil
			}
			at = r.End()
			continue
		}
		if !sum {
			s.gaps = append(s.gaps, gap{at, limit})
			return nil
		}
		next, err := s.search(at+entryfile.RecordAlign, limit)
		if err != nil {
			return err
		}
		s.gaps = append(s.gaps, gap{at, next})
		at = next
	}
	return nil
}

// recordAt reads the record at an offset, if one is there. It looks into no hole: memory that
// maps one cannot be read on a tmpfs that is full.
func (s *scan) recordAt(at, limit int64, sum bool) (r entryfile.Record, ok bool, err error) {
	if left := page.Size - at%page.Size; left == page.Size || left < entryfile.RecordHeaderBytes {
		start, end, err := s.raw.Data(at)
		if err != nil || start > at || start == end || end-at < entryfile.RecordHeaderBytes && isZero(s.mem[at:end]) {
			return r, false, err
		}
	}
	r, ok = entryfile.InspectRecord(s.mem, at, limit, s.header.Salt, sum)
	return r, ok, nil
}

// search returns the offset of the next whole record; limit if there is none.
func (s *scan) search(from, limit int64) (int64, error) {
	for at := from; at < limit; {
		start, end, err := s.raw.Data(at)
		if err != nil {
			return 0, err
		}
		start, end = alignUp(max(start, at)), min(end, limit)
		if start >= end {
			break
		}
		for pos := start; pos < end; pos += entryfile.RecordAlign {
			if pos%step == 0 {
				s.log.progress(pos)
				if err := s.log.ctx.Err(); err != nil {
					return 0, err
				}
			}
			if pos%page.Size == 0 && end-pos >= page.Size && isZero(s.mem[pos:pos+page.Size]) {
				pos += page.Size - entryfile.RecordHeaderBytes // a header may begin in its last bytes
				continue
			}
			if end-pos < entryfile.RecordHeaderBytes && isZero(s.mem[pos:end]) {
				continue // a hole follows, which reads as zeros, too, if at all: see recordAt
			}
			sums := func() (*page.Sums, error) { return s.sumsFrom(from, limit) }
			if _, ok, err := entryfile.InspectRecordBy(sums, s.mem, pos, limit, s.header.Salt); err != nil || ok {
				return pos, err
			}
		}
		at = max(end, at+entryfile.RecordAlign)
	}
	return limit, nil
}

// sumsFrom returns checksums of what stands in [from, limit), made once.
func (s *scan) sumsFrom(from, limit int64) (*page.Sums, error) {
	if s.sums != nil {
		return s.sums, nil
	}
	sums := page.NewSums(s.mem)
	for at := from; at < limit; {
		start, end, err := s.raw.Data(at)
		if err != nil {
			return nil, err
		}
		start, end = max(start, at), min(end, limit)
		if start >= end {
			break
		}
		for ; start < end; start += step {
			s.log.progress(start)
			if err := s.log.ctx.Err(); err != nil {
				return nil, err
			}
			sums.Add(start, min(start+step, end))
		}
		at = end
	}
	s.sums = sums
	return sums, nil
}

func alignUp(n int64) int64 {
	return (n + entryfile.RecordAlign - 1) / entryfile.RecordAlign * entryfile.RecordAlign
}

// findEnd says where the records of a file that is not sealed end: at the first
// gap that nothing witnesses to have been promised. What lies behind is dropped.
func (s *scan) findEnd() error {
	s.end = s.limit()
	if s.hasEnd() {
		s.end = s.records[len(s.records)-1].End()
	}
	if len(s.gaps) > 0 {
		if err := s.cutGaps(); err != nil {
			return err
		}
	}
	s.ended = s.hasEnd()
	for _, r := range s.records {
		s.mark = max(s.mark, r.Mark)
	}
	return nil
}

// cutGaps takes out the gaps and the records from the first gap on that was not
// promised.
func (s *scan) cutGaps() error {
	promised, err := s.promised(s.gaps[0].from)
	if err != nil {
		return err
	}
	for k, g := range s.gaps {
		if g.from < promised {
			continue
		}
		s.end, s.gaps = g.from, s.gaps[:k]
		break
	}
	if n := len(s.gaps); n > 0 && s.gaps[n-1].to == s.limit() { // damage, as far as was promised
		s.gaps[n-1].to = max(min(s.gaps[n-1].to, alignUp(promised)), s.gaps[n-1].from)
		s.end = s.gaps[n-1].to
	}
	for n := len(s.records); n > 0 && s.records[n-1].Offset >= s.end; n-- {
		s.records = s.records[:n-1]
	}
	return nil
}

// vouchedBy returns the name of the file that says that all of this one, which is not
// sealed, was synced; "" if none does.
func (s *scan) vouchedBy() string {
	if s.log.Meta != nil && s.log.meta.Durable.File > s.file.Number {
		return metafile.Name
	}
	return s.later.vouches
}

// endsLog reports whether the log ends in the file, with whatever is behind it: it
// was not sealed, no record says that it ends, and nothing that there was one.
func (s *scan) endsLog() bool {
	clean := s.log.Meta != nil && s.log.meta.Clean
	return s.ok && !s.foreign && s.file.Role == RoleLive && !clean && !s.header.Sealed && !s.ended && s.vouchedBy() == ""
}

// promised returns up to where the data of a file that is not sealed is known to
// have been synced; at is where it stops being whole.
func (s *scan) promised(at int64) (int64, error) {
	m := &s.log.meta
	until := int64(0)
	for _, r := range s.records {
		if r.Offset > at && r.Mark > at {
			until = max(until, r.Mark)
		}
	}
	if m.Durable.File == s.file.Number && !s.foreign {
		until = max(until, m.Durable.Offset)
		if m.Clean {
			return m.Durable.Offset, nil
		}
	}
	if s.vouchedBy() == "" {
		return until, nil
	}
	if s.hasEnd() {
		return max(until, s.end), nil
	}
	until = max(until, s.gaps[len(s.gaps)-1].from+s.endBytes())
	if s.header.Reused {
		return until, nil
	}
	used, err := s.lastUsed(at, s.limit())
	return max(until, used), err
}

// endBytes returns the size of the record that ends the file.
func (s *scan) endBytes() int64 {
	if len(s.header.WrappedKey) > 0 {
		return entryfile.RecordBytes(encryption.TagBytes)
	}
	return entryfile.RecordBytes(0)
}

// lastUsed returns the end of the last byte of [from, to) that is not zero; 0 if
// there is none.
func (s *scan) lastUsed(from, to int64) (last int64, err error) {
	for at := from; at < to; {
		start, end, err := s.raw.Data(at)
		if err != nil {
			return 0, err
		}
		start, end = max(start, at), min(end, to)
		if start >= end {
			break
		}
		if first, n := nonZero(s.mem[start:end]); n > 0 {
			last = start + first + n
		}
		at = end
	}
	return last, nil
}

// isZero reports whether there are zeros only.
func isZero(p []byte) bool {
	for len(p) >= 8 {
		if page.Order.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// nonZero returns where the first byte that is not zero stands, and how many
// there are from it to the last such byte.
func nonZero(p []byte) (first, n int64) {
	from, to := 0, len(p)
	for to-from >= page.Size && isZero(p[to-page.Size:to]) {
		to -= page.Size
	}
	for to > from && p[to-1] == 0 {
		to--
	}
	for from+8 <= to && isZero(p[from:from+8]) {
		from += 8
	}
	for from < to && p[from] == 0 {
		from++
	}
	return int64(from), int64(to - from)
}

// list makes the list of the file's entries: each record replaces the entries
// from its index on.
func (s *scan) list() {
	if p := &s.header.Seal; s.header.Sealed && p.Count > 0 && p.Punched > entryfile.DataStart {
		next := p.Last + 1
		if len(s.records) > 0 && !s.records[0].Ends && s.records[0].Index-p.First <= entryfile.MaxSlots {
			next = s.records[0].Index
		}
		s.first = p.First
		for range min(next-p.First, entryfile.MaxSlots) {
			s.entries = append(s.entries, entry{cleared})
		}
	}
	g := 0
	for k := range s.records {
		broken := false
		for ; g < len(s.gaps) && s.gaps[g].from < s.records[k].Offset; g++ {
			broken = true
		}
		s.take(k, broken)
	}
	if s.header.Sealed {
		s.fitSeal()
	} else if len(s.gaps) > 0 {
		s.fillFromGaps()
	}
}

// last returns the index of the last entry in the list.
func (s *scan) last() uint64 { return s.first + uint64(len(s.entries)) - 1 }

// take adds record number k; broken says that there is a gap in front of it.
func (s *scan) take(k int, broken bool) {
	r := s.records[k]
	if k > 0 && s.records[k-1].Ends {
		s.disorder(r, "the record follows the one that ends the file")
		return
	}
	if r.Ends {
		s.checkEnd(r)
		return
	}
	if len(s.entries) == 0 {
		s.first = r.Index
		if first := s.firstSaid(); first != 0 && first < r.Index && r.Index-first < entryfile.MaxSlots && broken {
			s.first = first
			s.fill(r.Index)
		}
		s.entries = append(s.entries, entry{k})
		return
	}
	switch {
	case r.Index < s.first && s.beginIsLost() && r.Index >= s.header.Seal.First:
		// The damaged record that the file begins with was of this entry, or of one before it.
		s.first, s.entries = r.Index, append(s.entries[:0], entry{k})
		return
	case r.Index < s.first || r.Index-s.first >= entryfile.MaxSlots:
		s.disorder(r, fmt.Sprintf("the record of entry %d does not belong to entries %d to %d", r.Index, s.first, s.last()))
		return
	case r.Index > s.last()+1 && !broken:
		s.disorder(r, fmt.Sprintf("the record of entry %d does not continue entries %d to %d", r.Index, s.first, s.last()))
	case r.Index > s.first:
		if e := s.entries[min(r.Index-s.first, uint64(len(s.entries)))-1]; e.record >= 0 && s.records[e.record].Term > r.Term {
			s.disorder(r, fmt.Sprintf("the record's term %d is below %d, that of an entry before it", r.Term, s.records[e.record].Term))
		}
	}
	s.fill(r.Index)
	s.entries = append(s.entries[:r.Index-s.first], entry{k})
}

// beginIsLost reports whether the file begins with damage.
func (s *scan) beginIsLost() bool { return len(s.gaps) > 0 && s.gaps[0].from == entryfile.DataStart }

// checkEnd asks whether the record that ends the file tells its last entry.
func (s *scan) checkEnd(r entryfile.Record) {
	index, term := uint64(1), uint64(1)
	if len(s.entries) > 0 {
		last, state := s.at(s.last())
		if index, term = s.last(), last.Term; state == cleared {
			term = s.digestTerm(index)
		}
	}
	wrong := len(s.gaps) == 0 && (r.Index != index || r.Term != term)
	if wrong || r.Type != 0 || r.End()-r.Offset != s.endBytes() {
		s.disorder(r, fmt.Sprintf("the record that ends the file is that of entry %d, term %d, with %d bytes; the last entry is %d, term %d",
			r.Index, r.Term, r.Payload, index, term))
	}
}

// firstSaid returns the index of the first entry as the seal says it, or of a file that is
// not sealed the first slot, or the damaged record itself; 0: unknown.
func (s *scan) firstSaid() uint64 {
	if s.header.Sealed {
		return s.header.Seal.First
	}
	if slot, ok := entryfile.InspectSlot(s.mem, 0, s.header.Salt); ok && s.inGap(slot.Record) {
		return slot.Index
	}
	if said := s.said(); len(said) > 0 && said[0].Offset == entryfile.DataStart {
		return said[0].Index
	}
	return 0
}

// said returns what the damaged records of a file that is not sealed say of themselves, as far
// as their headers look like those of records: its slots may not show them.
func (s *scan) said() (rs []entryfile.Record) {
	for _, g := range s.gaps {
		for at := g.from; at < g.to && !s.header.Sealed; {
			r, ok := entryfile.InspectRecord(s.mem, at, g.to, s.header.Salt, false)
			if !ok || r.Ends {
				break
			}
			rs = append(rs, r)
			at = r.End()
		}
	}
	return rs
}

// fillFromGaps adds the entries behind those of the list whose records were where a file that
// is not sealed is damaged, as their slots say, or the records themselves.
func (s *scan) fillFromGaps() {
	behind := int64(0) // what stands in front of a whole record was replaced by it, or is in the list
	for _, r := range s.records {
		if !r.Ends {
			behind = r.Offset
		}
	}
	s.fillFromSlots(behind)
	for _, r := range s.said() {
		if r.Offset < behind {
			continue
		}
		if len(s.entries) == 0 && r.Offset == entryfile.DataStart {
			s.first = r.Index
		}
		if r.Index == s.first+uint64(len(s.entries)) {
			s.entries = append(s.entries, entry{lost})
		}
	}
}

// fillFromSlots does so as far as the slots tell, for records from an offset on.
func (s *scan) fillFromSlots(behind int64) {
	for k := uint64(len(s.entries)); k < entryfile.MaxSlots; k++ {
		slot, ok := entryfile.InspectSlot(s.mem, k, s.header.Salt)
		if !ok || slot.Record < behind || !s.inGap(slot.Record) || k > 0 && slot.Index != s.first+k {
			return
		}
		if k == 0 {
			s.first = slot.Index
		}
		s.entries = append(s.entries, entry{lost})
	}
}

// fill adds entries below the index next, whose records are not there.
func (s *scan) fill(next uint64) {
	for s.first+uint64(len(s.entries)) < next {
		s.entries = append(s.entries, entry{lost})
	}
}

func (s *scan) disorder(r entryfile.Record, what string) {
	s.addRecord(r, KindOrder, what)
}

// fitSeal makes the list show what the seal says.
func (s *scan) fitSeal() {
	p := &s.header.Seal
	if p.Count == 0 {
		s.entries = nil
		return
	}
	if len(s.entries) == 0 {
		s.first = p.First
	}
	if s.first != p.First {
		s.add(Problem{Severity: Damage, Kind: KindSeal, Offset: s.head, First: p.First, Last: p.Last, Heal: healEntries,
			What: fmt.Sprintf("the seal says that the first entry is %d, but the records begin with %d", p.First, s.first)})
		return
	}
	s.fill(p.Last + 1)
	s.entries = s.entries[:p.Count]
}

// at returns the record of an entry of the list.
func (s *scan) at(i uint64) (r entryfile.Record, state int) {
	e := s.entries[i-s.first]
	if e.record < 0 {
		return entryfile.Record{}, e.record
	}
	return s.records[e.record], 0
}
