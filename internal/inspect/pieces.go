package inspect

import (
	"cmp"
	"slices"

	"github.com/seed-2fef92ad/raftwal/entryfile"
)

// paint notes what kind a range of bytes of the data region is.
func (s *scan) paint(from, to int64, kind Kind) {
	from, to = max(from, entryfile.DataStart), min(to, s.size)
	if from < to {
		s.file.Pieces = append(s.file.Pieces, Piece{from, to, kind})
	}
}

// classify paints the records, and what is left between them.
func (s *scan) classify() {
	for _, r := range s.spared {
		s.paint(r.Offset, r.End(), s.kindOf(r, true))
	}
	for k, r := range s.records {
		counts := r.Ends || len(s.entries) > 0 && r.Index >= s.first && r.Index <= s.last() && s.entries[r.Index-s.first].record == k
		s.paint(r.Offset, r.End(), s.kindOf(r, counts))
	}
}

// kindOf says what a whole record is; counts says that no later record of the
// file replaces it.
func (s *scan) kindOf(r entryfile.Record, counts bool) Kind {
	m := &s.log.meta
	switch {
	case !counts || s.later.cut != 0 && r.Index >= s.later.cut:
		return Superseded
	case r.Index <= m.Compacted.Index:
		return Compacted
	case s.isCleared(r):
		return Cleared
	}
	return Live
}

// isCleared reports whether the entry reads without its data.
func (s *scan) isCleared(r entryfile.Record) bool {
	m, n := &s.log.meta, s.file.Number
	return r.Type == 0 && r.Index < m.ClearedBelow &&
		(n < m.ClearedEnd.File || n == m.ClearedEnd.File && r.Offset < m.ClearedEnd.Offset)
}

// sum makes one row of what was painted, in which nothing is left open, and adds
// it up. What was painted does not overlap.
func (s *scan) sum() {
	slices.SortStableFunc(s.file.Pieces, func(a, b Piece) int { return cmp.Compare(a.From, b.From) })
	r := row{punched: entryfile.DataStart}
	if s.header.Sealed {
		r.punched = s.header.Seal.Punched
	}
	at := int64(entryfile.DataStart)
	for _, p := range s.file.Pieces {
		r.background(at, p.From)
		r.add(Piece{max(p.From, at), p.To, p.Kind})
		at = max(at, p.To)
	}
	r.background(at, s.size)
	s.file.Pieces = r.pieces
	for _, p := range r.pieces {
		s.file.Bytes[p.Kind] += p.To - p.From
	}
}

// repaint makes torn what is a record of whatever kind.
func (f *File) repaint() {
	r := row{}
	f.Bytes = Bytes{}
	for _, p := range f.Pieces {
		switch p.Kind {
		case Compacted, Superseded, Cleared, Live:
			p.Kind = Torn
		}
		r.add(p)
		f.Bytes[p.Kind] += p.To - p.From
	}
	f.Pieces = r.pieces
}

// row is pieces in a row.
type row struct {
	pieces  []Piece
	punched int64 // what is not painted is punched up to here, and free from there on
}

func (r *row) background(from, to int64) {
	r.add(Piece{from, min(to, r.punched), Punched})
	r.add(Piece{max(from, r.punched), to, Free})
}

func (r *row) add(p Piece) {
	if p.From >= p.To {
		return
	}
	if n := len(r.pieces); n > 0 && r.pieces[n-1].Kind == p.Kind && r.pieces[n-1].To == p.From {
		r.pieces[n-1].To = p.To
		return
	}
	r.pieces = append(r.pieces, p)
}
