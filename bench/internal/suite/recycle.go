package suite

import (
	"fmt"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
)

// defaultFileBytes is how many bytes of records our log stores in a file, by default.
const defaultFileBytes = 64 << 20

func (r *runner) fileBytes() int {
	if r.cfg.FileBytes != 0 {
		return int(r.cfg.FileBytes)
	}
	return defaultFileBytes
}

// recycler keeps a log short, so that it writes to files that were used before.
type recycler struct {
	r    *runner
	l    contender.Log
	done int // bytes that were saved when it was compacted last
}

// after is called when so many bytes have been saved. It compacts the log now and
// then, as one that takes snapshots does.
func (c *recycler) after(saved int) error {
	if saved-c.done < c.r.fileBytes()/2 {
		return nil
	}
	c.done = saved
	return c.compact()
}

func (c *recycler) compact() error {
	l, ok := c.l.(contender.Compacter)
	if !ok {
		return nil // the reference always writes where it has written
	}
	if err := l.Compact(c.r.source.next - 1); err != nil {
		return fmt.Errorf("compact up to %d: %w", c.r.source.next-1, err)
	}
	return nil
}

// prepare brings a new log to where its tail, and what follows it, are files that were
// used before: two are filled, and dropped when the third has begun; the fourth is one
// of them.
func (c *recycler) prepare() error {
	const entries, size = 64, 4096 // large ones: small ones fill a file's index before its data region
	if _, ok := c.l.(contender.Compacter); !ok {
		return nil
	}
	for _, files := range []float64{2.2, 1} {
		for saved := 0; saved < int(files*float64(c.r.fileBytes())); saved += entries * size {
			if err := c.l.Append(c.r.source.batch(entries, size)); err != nil {
				return err
			}
		}
		if err := c.compact(); err != nil {
			return err
		}
	}
	return nil
}
