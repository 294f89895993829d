package vfs

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// fillStep is how much Fill looks at at once, in bytes: so long does a store wait.
const fillStep = 16 * page.Size

// Fill stands for Reserve where the system has no call for it: it makes blocks for [off, off+n)
// of f by writing zeros where there are zeros by now. It changes no byte, and does not make the
// file longer. stores is held while it looks at a piece and writes to it: who takes it for each
// store to f loses none.
func Fill(f interface {
	io.ReaderAt
	io.WriterAt
}, off, n int64, stores sync.Locker) error {
	buf := make([]byte, min(n, fillStep))
	for end := off + n; off < end; {
		filled, err := fillPiece(f, buf[:min(end-off, int64(len(buf)))], off, stores)
		if err != nil || filled == 0 {
			return err
		}
		off += filled
	}
	return nil
}

// fillPiece fills the piece at off that p has room for, and returns how long it is; 0 where
// the file ends.
func fillPiece(f interface {
	io.ReaderAt
	io.WriterAt
}, p []byte, off int64, stores sync.Locker) (filled int64, err error) {
	stores.Lock()
	defer stores.Unlock()
	n, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	for at := int64(0); at < int64(n); {
		to := min(int64(n), at+page.Size-(off+at)%page.Size) // a page that holds something has a block
		if piece := p[at:to]; bytes.Equal(piece, zeros[:len(piece)]) {
			if _, err := f.WriteAt(piece, off+at); err != nil {
				return 0, err
			}
		}
		at = to
	}
	return int64(n), nil
}

// zeros are never changed, and so take no memory.
var (
	zeros  = align(unused[:], MaxZeros)
	unused [MaxZeros + page.Size - 1]byte
)
