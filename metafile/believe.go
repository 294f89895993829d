package metafile

import "slices"

// A hard state that was stored without a sync counts only with the records that it was
// stored behind: a power cut may leave the page, and not these. Then it speaks of entries
// that are lost: that they are committed, of those that they had replaced even. What
// counts instead is the newest hard state whose records are there; at last that of pages 0
// and 1, which was stored when its records had been synced.

// Reached reports whether records that end where found says reach e. first is the first
// live file: what is in front of it was durable when it died.
func (e End) Reached(first uint64, found []End) bool {
	if e.File < first {
		return true
	}
	return slices.ContainsFunc(found, func(f End) bool {
		return f.File == e.File && f.Salt == e.Salt && f.Offset >= e.Offset
	})
}

// Pages are the four pages of a wal.meta; nil: one that cannot be read.
type Pages [pageCount]*Meta

// Believed returns the page whose hard state counts, and the one that counts for all
// else. found says where the records of each entry file end that belongs to the log. -1:
// none can be read.
func (p *Pages) Believed(found []End) (hard, newest int) {
	hard, newest = -1, -1
	for i, m := range p {
		if m != nil && (newest < 0 || m.sequence > p[newest].sequence) {
			newest = i
		}
	}
	for i, m := range p {
		if m == nil || i > 1 && !m.Behind.Reached(p[newest].FirstFile, found) {
			continue
		}
		if hard < 0 || m.sequence > p[hard].sequence {
			hard = i
		}
	}
	return hard, newest
}

// Believed returns the hard state that counts, and the checkpoint that was noted with it, given
// where the records of each entry file end that belongs to the log: see Pages. Nothing must have
// been stored since Open.
func (f *File) Believed(found []End) (h HardState, checkpoint uint64) {
	m := &f.meta
	if hard, _ := f.pages.Believed(found); hard >= 0 {
		m = f.pages[hard]
	}
	return m.HardState, m.Checkpoint
}
