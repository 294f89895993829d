package repair

import (
	"cmp"
	"context"
	"hash/crc64"
	"math"

	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// reading is what a log holds: which entries there are, in which file, and what tells
// them from others.
type reading struct {
	all   Range
	files map[string]Range
	rows  []row
}

// row is entries that can be read, one after another, each as a hash.
type row struct {
	first uint64
	sums  []uint64
}

// readAll reads all entries of l.
func readAll(ctx context.Context, l *inspect.Log) (*reading, error) {
	r := &reading{files: make(map[string]Range)}
	if l.Last < l.First || l.Last == 0 {
		return r, nil
	}
	r.all = Range{First: l.First, Last: l.Last}
	err := l.Each(ctx, l.First, l.Last, func(e inspect.Entry) error {
		f := r.files[e.File]
		f.First, f.Last = cmp.Or(f.First, e.Index), e.Index
		if e.Err == nil {
			f.Entries++
			r.all.Entries++
			r.note(e)
		}
		r.files[e.File] = f
		return nil
	})
	return r, err
}

func (r *reading) note(e inspect.Entry) {
	sum := sumOf(e)
	if n := len(r.rows); n > 0 && r.rows[n-1].end() == e.Index {
		r.rows[n-1].sums = append(r.rows[n-1].sums, sum)
		return
	}
	r.rows = append(r.rows, row{e.Index, []uint64{sum}})
}

// end returns the index behind the row.
func (r *row) end() uint64 { return r.first + uint64(len(r.sums)) }

// differs returns the first entry from an index on that other does not hold; the highest
// number if it holds all.
func (r *reading) differs(other *reading, from uint64) uint64 {
	k := 0
	for _, row := range r.rows {
		for n, sum := range row.sums {
			i := row.first + uint64(n)
			if i < from {
				continue
			}
			for k < len(other.rows) && other.rows[k].end() <= i {
				k++
			}
			if k == len(other.rows) || i < other.rows[k].first || other.rows[k].sums[i-other.rows[k].first] != sum {
				return i
			}
		}
	}
	return math.MaxUint64
}

// sumOf returns a hash of an entry.
func sumOf(e inspect.Entry) uint64 {
	table := crc64.MakeTable(crc64.ECMA)
	head := page.Order.AppendUint64(nil, e.Term)
	head = page.Order.AppendUint32(head, e.Type)
	if e.Cleared {
		head = append(head, 1)
	}
	return crc64.Update(crc64.Checksum(head, table), table, e.Data)
}
