package dgraph

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// Write writes c into the empty directory dir, durably, as Dgraph would have:
// not encrypted. progress is called with the number of entries written. After an
// error, dir holds part of it.
//
// Errors: ErrSnapshotTooLarge, before anything is written; that of ctx once it is
// done.
func Write(ctx context.Context, dir string, c *transfer.Contents, progress func(done int)) error {
	meta, err := encodeMeta(c)
	if err != nil {
		return err
	}
	w := writer{dir: dir}
	done := 0
	for e, err := range c.Entries {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = w.add(e)
		}
		if err != nil {
			return errors.Join(err, w.abandon())
		}
		done++
		progress(done)
	}
	if err := w.finishFile(); err != nil {
		return err
	}
	if err := writeMeta(filepath.Join(dir, metaName), meta); err != nil {
		return err
	}
	return vfs.OS().SyncDir(dir)
}

func writeMeta(path string, meta []byte) (err error) {
	f, err := create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(meta); err != nil {
		return err
	}
	if err := f.Truncate(metaBytes); err != nil {
		return err
	}
	return f.Sync()
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// writer writes entry files, one after the other.
type writer struct {
	dir    string
	number uint64 // of the file under way, or the last one

	f      *os.File // nil: none
	data   *bufio.Writer
	slots  []byte // in use
	offset uint64 // of the next data
}

func (w *writer) add(e *raftpb.Entry) error {
	if w.f == nil || len(w.slots) == maxSlots*slotBytes {
		if err := w.nextFile(); err != nil {
			return err
		}
	}
	s := slot{term: e.GetTerm(), index: e.GetIndex(), offset: w.offset, typ: uint32(e.GetType())}
	n := len(w.slots)
	w.slots = w.slots[:n+slotBytes]
	s.encode(w.slots[n:])
	var length [4]byte
	order.PutUint32(length[:], uint32(len(e.GetData())))
	if _, err := w.data.Write(length[:]); err != nil {
		return err
	}
	_, err := w.data.Write(e.GetData())
	w.offset += 4 + uint64(len(e.GetData()))
	return err
}

func (w *writer) nextFile() error {
	if err := w.finishFile(); err != nil {
		return err
	}
	w.number++
	f, err := create(filepath.Join(w.dir, entryfile.Name(w.number)))
	if err != nil {
		return err
	}
	w.f, w.slots, w.offset = f, make([]byte, 0, maxSlots*slotBytes), dataStart
	w.data = bufio.NewWriterSize(f, 1<<18)
	_, err = f.Seek(dataStart, io.SeekStart)
	return err
}

// finishFile makes the file under way complete and durable.
func (w *writer) finishFile() error {
	if w.f == nil {
		return nil
	}
	err := w.data.Flush()
	if err == nil {
		_, err = w.f.WriteAt(w.slots, 0)
	}
	if err == nil {
		err = w.f.Sync()
	}
	err = errors.Join(err, w.abandon())
	if err != nil {
		return fmt.Errorf("write entry file %d: %w", w.number, err)
	}
	return nil
}

// abandon closes the file under way.
func (w *writer) abandon() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return f.Close()
}
