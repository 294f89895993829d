package inspect

import (
	"fmt"
	"slices"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// useSlots asks the slots, and the damaged records, which entries those have.
func (s *scan) useSlots() {
	if len(s.gaps) == 0 || len(s.entries) == 0 {
		return
	}
	for k := range s.entries {
		slot, ok := entryfile.InspectSlot(s.mem, uint64(k), s.header.Salt)
		if !ok || slot.Index != s.first+uint64(k) {
			continue
		}
		if e := s.entries[k]; s.inGap(slot.Record) && (e.record < 0 || s.records[e.record].Offset < slot.Record) {
			s.entries[k] = entry{lost}
		}
	}
	for _, r := range s.said() {
		if r.Index < s.first || r.Index > s.last() {
			continue
		}
		if e := &s.entries[r.Index-s.first]; e.record >= 0 && s.records[e.record].Offset < r.Offset {
			*e = entry{lost}
		}
	}
}

// slotsCount: the slots show the live entries, or are damaged. Those of a file that is in use, or
// was when a process died, are of when the log was last closed, if of anything.
func (s *scan) slotsCount() bool {
	return s.header.Sealed || s.log.Meta != nil && s.log.meta.Clean
}

func (s *scan) inGap(at int64) bool {
	return slices.ContainsFunc(s.gaps, func(g gap) bool { return g.from <= at && at < g.to })
}

// judgeGaps reports the damaged records, and what a crash has torn.
func (s *scan) judgeGaps() {
	for _, g := range s.gaps {
		first, last := s.lostIn(g)
		what, heal := "the record is damaged", healEntries
		switch {
		case g.to-g.from > page.Size:
			what = fmt.Sprintf("%d bytes hold no whole record", g.to-g.from)
		case first == 0 && !s.header.Sealed && !s.ended && g.to == s.end && s.vouchedBy() != "":
			what = "the end of the file is damaged"
		case first == 0:
			what = "a record is damaged, of no entry that counts"
		}
		if first == 0 && s.header.Sealed || first != 0 && last <= s.log.meta.Snapshot.Index {
			heal = healDead
		}
		s.add(Problem{Severity: Damage, Kind: KindRecord, Offset: g.from, Length: g.to - g.from, First: first, Last: last,
			What: what + s.witness(g), Heal: heal})
		s.paint(g.from, g.to, Damaged)
	}
	s.judgeRest()
}

// witness says why a gap in a file that is not sealed is no torn write.
func (s *scan) witness(g gap) string {
	m, by := &s.log.meta, s.vouchedBy()
	switch {
	case s.header.Sealed:
		return ""
	case m.Durable.File == s.file.Number && g.from < m.Durable.Offset:
		return fmt.Sprintf("; all up to offset %d had been synced", m.Durable.Offset)
	case by != "":
		return fmt.Sprintf("; %s says that it had been synced", by)
	}
	return "; a later record says that it had been synced"
}

// judgeRest looks at what lies behind the records.
func (s *scan) judgeRest() {
	last, err := s.lastUsed(s.end, s.size)
	if err != nil || last == 0 {
		return
	}
	torn := last
	if s.header.Reused {
		torn = s.tornRecord()
		s.paint(torn, last, Stale)
	}
	if torn == s.end {
		return
	}
	p := Problem{Severity: Note, Kind: KindTorn, Offset: s.end, Length: torn - s.end}
	switch {
	case s.ended:
		p.What, p.Heal = fmt.Sprintf("%d bytes behind the record that ends the file: a torn write that an earlier recovery dropped", p.Length), healNothing
	case s.header.Sealed:
		p.What, p.Heal = fmt.Sprintf("%d bytes behind the seal: a torn write that an earlier recovery dropped", p.Length), healNothing
	case s.log.meta.Clean && s.log.Meta != nil:
		p.Kind, p.What, p.Heal = KindStray, fmt.Sprintf("%d bytes behind the end of a log that was closed cleanly", p.Length), healNothing
	default:
		p.What, p.Heal = fmt.Sprintf("%d bytes behind the last whole record: a write under way, or torn by a crash", p.Length), healTorn
	}
	s.paint(s.end, torn, Torn)
	if s.log.opts.Check || !s.header.Sealed {
		s.add(p)
	}
}

// tornRecord returns where a record that is not whole ends, right behind the records
// of a file that is used again, if it looks like one of this file, or a slot says that
// it stands there; the end of those if there is none. What else is there is of an
// earlier life of the file.
func (s *scan) tornRecord() int64 {
	clean := s.log.Meta != nil && s.log.meta.Clean
	if s.header.Sealed || s.ended || clean {
		return s.end
	}
	r, ok := entryfile.InspectRecord(s.mem, s.end, s.limit(), s.header.Salt, false)
	switch {
	case ok && len(s.entries) > 0 && r.Index >= s.first && r.Index-s.first < entryfile.MaxSlots:
		return r.End()
	case s.slotPointsTo(s.end):
		return min(s.end+entryfile.RecordHeaderBytes, s.limit())
	}
	return s.end
}

// slotPointsTo reports whether a slot, of an entry of the list or of the one behind
// it, says that its record stands there.
func (s *scan) slotPointsTo(at int64) bool {
	for k := range min(len(s.entries)+1, entryfile.MaxSlots) {
		if slot, ok := entryfile.InspectSlot(s.mem, uint64(k), s.header.Salt); ok && slot.Record == at {
			return true
		}
	}
	return false
}

// lostIn returns the live entries whose records were in a gap; 0 and 0 if there
// are none.
func (s *scan) lostIn(g gap) (first, last uint64) {
	before := uint64(0)
	for k, e := range s.entries {
		i := s.first + uint64(k)
		if e.record >= 0 {
			if s.records[e.record].Offset < g.from {
				before = i
			}
			continue
		}
		slot, ok := entryfile.InspectSlot(s.mem, uint64(k), s.header.Salt)
		told := ok && slot.Index == i
		in := told && g.from <= slot.Record && slot.Record < g.to
		elsewhere := told && !in && s.slotsCount()
		if e.record == cleared || elsewhere || !in && !s.between(k, g) {
			continue
		}
		if first == 0 {
			first = i
		}
		last = i
	}
	if first != 0 || s.header.Sealed || g.to < s.end || s.later.cut != 0 && s.later.cut <= before+1 {
		return first, last
	}
	return before + 1, before + 1 // what could stand there
}

// between reports whether the lost entry k, whose slot does not help, may have
// stood in g, going by the records of its neighbours.
func (s *scan) between(k int, g gap) bool {
	for n := k - 1; n >= 0; n-- {
		if r := s.entries[n].record; r >= 0 {
			if s.records[r].Offset > g.from {
				return false
			}
			break
		}
	}
	for n := k + 1; n < len(s.entries); n++ {
		if r := s.entries[n].record; r >= 0 {
			return s.records[r].Offset >= g.to
		}
	}
	return true
}

// describe says which entries of the file count.
func (s *scan) describe() {
	f := s.file
	f.Records, f.End, f.Ended = len(s.records)+len(s.spared), s.end, s.ended
	if len(s.entries) == 0 || s.foreign {
		return
	}
	f.First, f.Last = s.first, s.last()
	if s.later.cut != 0 {
		f.Last = min(f.Last, s.later.cut-1)
	}
	f.First = max(f.First, s.log.meta.Compacted.Index+1)
	if f.Last < f.First {
		f.First, f.Last = 0, 0
	}
}

// describeHeld says which entries the file holds, whether they count or not.
func (s *scan) describeHeld() {
	f := s.file
	f.Header, f.Held.Known = s.header, s.ok && !s.foreign && f.Role == RoleLive
	if f.Held.Known && len(s.entries) > 0 {
		f.Held.First, f.Held.Last = s.first, s.last()
	}
}

// findHidden says what damage does not let anybody know of the entries of a file. A seal
// tells all of them, and so does a slot in a log that was closed.
func (s *scan) findHidden() {
	if s.header.Sealed {
		return
	}
	told := false
	if s.slotsCount() {
		slot, ok := entryfile.InspectSlot(s.mem, 0, s.header.Salt)
		told = ok && len(s.entries) > 0 && slot.Index == s.first
	}
	h := &s.file.Held
	if told && s.slotsEnd() {
		return
	}
	h.HidesFirst = len(s.gaps) > 0 && s.gaps[0].from == entryfile.DataStart && !told
	h.HidesEnd = !s.ended && (s.gapAtEnd() || s.cutInRecords())
}

// slotsEnd: the slots show the last entry of the list, and none behind it.
func (s *scan) slotsEnd() bool {
	n := uint64(len(s.entries))
	last, ok := entryfile.InspectSlot(s.mem, n-1, s.header.Salt)
	return ok && last.Index == s.last() && (n == entryfile.MaxSlots || isZero(s.mem[n*entryfile.SlotBytes:(n+1)*entryfile.SlotBytes]))
}

// gapAtEnd: the records end in damage.
func (s *scan) gapAtEnd() bool { return len(s.gaps) > 0 && s.gaps[len(s.gaps)-1].to >= s.end }

// cutInRecords: the file is shorter than it was, and nothing says that no records stood in
// what is gone.
func (s *scan) cutInRecords() bool {
	m := &s.log.meta
	closedHere := s.log.Meta != nil && m.Clean && m.Durable.File == s.file.Number && m.Durable.Offset <= s.size
	return s.size < s.header.Size && !closedHere
}

// checkSeal compares the seal with the records.
func (s *scan) checkSeal() {
	p := &s.header.Seal
	if n := len(s.records); n > 0 && len(s.gaps) == 0 && s.records[n-1].End() != p.End {
		s.add(Problem{Severity: Damage, Kind: KindSeal, Offset: s.records[n-1].End(), Heal: healFile,
			What: fmt.Sprintf("the seal says that the data ends at %d, but it ends at %d", p.End, s.records[n-1].End())})
	}
	if !p.HasDigest || len(s.gaps) > 0 || len(s.entries) == 0 || s.first != p.First {
		return
	}
	for i := p.First; i <= p.Last; i++ {
		r, state := s.at(i)
		if state != 0 {
			continue
		}
		if term := s.digestTerm(i); term != r.Term {
			s.add(Problem{Severity: Damage, Kind: KindSeal, Offset: s.head, First: i, Last: i, Heal: healRebuilt,
				What: fmt.Sprintf("the digest gives entry %d the term %d, its record %d", i, term, r.Term)})
			return
		}
	}
}

// checkCleared: records are given back to the disk only after wal.meta says that
// their data is cleared.
func (s *scan) checkCleared() {
	first, last := uint64(0), uint64(0)
	for k, e := range s.entries {
		i := s.first + uint64(k)
		if e.record != cleared || s.file.First == 0 || i < s.file.First || i > s.file.Last || s.digestType(i) != 0 {
			continue
		}
		r := entryfile.Record{Index: i}
		if slot, ok := entryfile.InspectSlot(s.mem, uint64(k), s.header.Salt); ok {
			r.Offset = slot.Record
		}
		if s.isCleared(r) {
			continue
		}
		if first == 0 {
			first = i
		}
		last = i
	}
	if first == 0 || s.log.Meta == nil {
		return
	}
	s.add(Problem{Severity: Damage, Kind: KindForeign, Offset: s.head, First: first, Last: last, Heal: healFile,
		What: "the records were given back to the disk, but wal.meta does not say that their data is cleared: one of the two is of another time"})
}

func (s *scan) digestTerm(i uint64) (term uint64) {
	for _, run := range s.header.Seal.Terms {
		if run.First <= i {
			term = run.Term
		}
	}
	return term
}

// digestType returns the type of an entry as the digest tells it.
func (s *scan) digestType(i uint64) uint32 {
	for _, o := range s.header.Seal.Others {
		if o.Index == i {
			return o.Type
		}
	}
	return 0
}

// checkSlots compares the slots with the records.
func (s *scan) checkSlots() {
	clean := s.log.Meta != nil && s.log.meta.Clean
	if !s.slotsCount() {
		return
	}
	from, bad := -1, 0
	for k := range len(s.entries) + 1 {
		right := k == len(s.entries) || s.slotIsRight(k)
		if !right {
			bad++
		}
		if right && from >= 0 {
			s.addSlots(from, k, clean)
			from = -1
		} else if !right && from < 0 {
			from = k
		}
	}
	if bad > 0 || !s.header.Sealed || s.foreign || len(s.entries) == 0 {
		return
	}
	seal := &s.header.Seal
	what := ""
	switch {
	case entryfile.InspectSlots(s.mem, seal.Count) != seal.SlotsSum:
		what = "the slots in use do not have the checksum that the seal says"
	case s.secrets != nil && !s.secrets.SlotsAuthentic(s.mem, seal):
		s.log.addTampered(s.file.Name, 0, "the slots are not those that were sealed")
		return
	default:
		return
	}
	s.file.IndexDamaged = true
	s.add(Problem{Severity: Damage, Kind: KindSlots, Length: int64(seal.Count) * entryfile.SlotBytes, First: seal.First, Last: seal.Last, What: what, Heal: healRebuilt})
}

// slotIsRight compares a slot with the record, as far as there is one.
func (s *scan) slotIsRight(k int) bool {
	i := s.first + uint64(k)
	slot, ok := entryfile.InspectSlot(s.mem, uint64(k), s.header.Salt)
	if !ok || slot.Index != i {
		return false
	}
	r, state := s.at(i)
	switch state {
	case cleared:
		return !s.header.Seal.HasDigest || slot.Term == s.digestTerm(i) && slot.Type == s.digestType(i)
	case lost:
		return true
	}
	return slot.Term == r.Term && slot.Type == r.Type && slot.Record == r.Offset
}

// addSlots reports the slots [from, to).
func (s *scan) addSlots(from, to int, clean bool) {
	p := Problem{Severity: Damage, Kind: KindSlots, Offset: int64(from) * entryfile.SlotBytes, Length: int64(to-from) * entryfile.SlotBytes,
		First: s.first + uint64(from), Last: s.first + uint64(to) - 1, What: "the slots do not show the records", Heal: healRebuilt}
	switch {
	case clean && !s.oneHeader || p.First <= s.file.Last:
		s.file.IndexDamaged = true
	default: // a crash in Close leaves them; or the last seal was in the header page that cannot be read
		p.Severity, p.What = Note, "the slots do not show the records, which a later file supersedes"
	}
	s.add(p)
}

// checkZeros looks for bytes where zeros belong.
func (s *scan) checkZeros() error {
	s.checkPadding()
	slots := int64(len(s.entries)) * entryfile.SlotBytes
	if !s.header.Sealed && !(s.log.Meta != nil && s.log.meta.Clean) {
		slots = entryfile.MaxSlots * entryfile.SlotBytes // what they show is for Open to say
	}
	if s.header.Sealed {
		slots = int64(s.header.Seal.Count) * entryfile.SlotBytes
	}
	if first, n := nonZero(s.mem[slots:entryfile.HeaderPages[0]]); n > 0 {
		s.log.addStray(s.file.Name, slots+first, n)
	}
	return nil
}

// checkPadding looks at the bytes between records.
func (s *scan) checkPadding() {
	for _, r := range slices.Concat(s.spared, s.records) {
		if first, n := nonZero(s.mem[r.Padded():r.End()]); n > 0 {
			s.log.addStray(s.file.Name, r.Padded()+first, n)
		}
	}
}
