package mmapwal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// plan is what a Save is going to do. Its slices are used again by the next one.
type plan struct {
	snap    *raftpb.Snapshot // nil: none
	empties bool             // the snapshot needs a file that begins behind it
	entries []*raftpb.Entry  // those to be stored

	meta     metafile.Meta // with the snapshot in it
	written  written       // the snapshot's data, if that was stored beforehand
	snapFile string        // temporary name of the snapshot's data, "" if inline

	snapNamed bool // it has its name, which may not be durable

	direct int64             // up to so many bytes of records may go around the page cache
	inTail int               // how many of entries go to the tail
	files  []*entryfile.File // files for the rest, with their names
	counts []int             // how many of entries go to each
}

func (p *plan) reset() {
	clear(p.files)
	*p = plan{files: p.files[:0], counts: p.counts[:0]}
}

// makeRoom sees to it that what check planned will find space on the disk. When
// it fails with ErrNoSpace nothing has changed.
func (d *DiskStorage) makeRoom(p *plan) error {
	if p.snap != nil {
		if err := d.prepareSnapshot(p, p.snap); err != nil {
			return err
		}
	}
	rest := p.entries
	if len(rest) > 0 && d.tail != nil && (!p.empties || d.tailIsFresh()) {
		count, bytes := d.tail.Room(rest)
		if err := d.withRoom(func() error { return d.tail.Reserve(bytes) }); err != nil {
			return err
		}
		p.inTail, rest = count, rest[count:]
	}
	for len(rest) > 0 || p.empties && !d.tailIsFresh() && len(p.files) == 0 {
		count, err := d.addFile(p, rest)
		if err != nil {
			return err
		}
		rest = rest[count:]
	}
	return d.nameSnapshotFile(p)
}

// addFile adds to p the file behind those it has, with room for as many of es as it
// takes.
func (d *DiskStorage) addFile(p *plan, es []*raftpb.Entry) (count int, err error) {
	var f *entryfile.File
	if len(p.files) == 0 {
		if f, err = d.takeNextFor(es); err != nil {
			return 0, err
		}
	}
	if f != nil {
		p.files = append(p.files, f) // it is given back if there is no room
		var bytes int64
		count, bytes = f.Room(es)
		err = d.withRoom(func() error { return f.Reserve(bytes) })
	} else {
		err = d.withRoom(func() (err error) {
			f, count, err = d.prepareFile(d.next+uint64(len(p.files)), d.before(p), es)
			return err
		})
		if err == nil {
			p.files = append(p.files, f)
		}
	}
	p.counts = append(p.counts, count)
	return count, err
}

// withRoom calls reserve, which makes room and can be tried again. As long as the disk is
// full, it first gives up what the log keeps for later.
func (d *DiskStorage) withRoom(reserve func() error) error {
	err := noSpace(reserve())
	for errors.Is(err, ErrNoSpace) {
		given, failed := d.giveRoom()
		if failed != nil {
			return failed
		}
		if !given {
			return err
		}
		err = noSpace(reserve())
	}
	return err
}

// giveRoom gives space back to the disk: that of dead files, which may be on their way, of a
// spare file, of the file that was made ahead. given is false if there is none of them.
func (d *DiskStorage) giveRoom() (given bool, err error) {
	if d.remover.Finish() || d.remover.DropSpare() {
		return true, nil
	}
	if f := d.takeNext(); f != nil {
		return true, d.unmake(f)
	}
	return false, nil
}

// tailIsFresh: the tail has not taken a record yet.
func (d *DiskStorage) tailIsFresh() bool {
	return d.tail != nil && d.tail.End() == entryfile.DataStart
}

// discard removes what makeRoom prepared and nobody used, but for the first file.
func (d *DiskStorage) discard(p *plan) {
	for k, f := range slices.Backward(p.files) {
		if k == 0 {
			d.giveNext(f)
		} else if err := d.unmake(f); err != nil {
			_ = d.poison(err) // it must not be there when the log is closed
		}
	}
	d.removeTemporary(p.snapFile)
	d.removeTemporary(p.written.file)
	p.reset()
}

// removeTemporary removes a file that got no name; if it cannot, the next Open does.
func (d *DiskStorage) removeTemporary(name string) {
	if name != "" {
		_ = d.fsys.Remove(name)
	}
}

// prepareFile makes the file with the given number, which follows before (nil: none),
// with room for as many of es as it takes, at least one.
func (d *DiskStorage) prepareFile(number uint64, before *entryfile.File, es []*raftpb.Entry) (*entryfile.File, int, error) {
	spec, err := d.nextSpec(number, before)
	if err != nil {
		return nil, 0, err
	}
	if len(es) > 0 {
		spec.DataBytes = max(spec.DataBytes, spec.Hold(len(es[0].GetData())))
	}
	count, bytes := spec.Fit(es)
	f, err := d.makeFile(spec, bytes)
	return f, count, err
}

// nextSpec describes the file with the given number, which follows before (nil: none).
func (d *DiskStorage) nextSpec(number uint64, before *entryfile.File) (entryfile.Spec, error) {
	salt, err := d.randomUint64()
	spec := entryfile.Spec{
		Number: number,
		LogID:  d.meta.Meta().LogID, Salt: uint32(salt), DataBytes: d.opts.FileDataSize, Synced: d.opts.Sync.mode == hardSync,
		Keys: d.meta.Keys(), Random: d.host.Random,
	}
	if before != nil {
		spec.Prev, spec.PrevSalt, spec.PrevSealed = before.Number(), before.Salt(), before.Sealed()
		spec.Direct = before.Direct()
	}
	return spec, err
}

// before returns the file in front of the one that p prepares next; nil if there
// is none.
func (d *DiskStorage) before(p *plan) *entryfile.File {
	if n := len(p.files); n > 0 {
		return p.files[n-1]
	}
	if n := len(d.files); n > 0 {
		return d.files[n-1].file
	}
	return nil
}

// prepareSnapshot puts snap into p.meta; data too large for wal.meta goes to a
// file under a temporary name.
func (d *DiskStorage) prepareSnapshot(p *plan, snap *raftpb.Snapshot) error {
	p.meta = d.meta.Meta()
	inFile := proto.Size(snap) >= metafile.MaxInlineSnapshot
	if inFile && snap.GetMetadata().GetIndex() == 0 {
		return invalidf("a snapshot of index 0 has at most %d bytes; it has %d", metafile.MaxInlineSnapshot-1, proto.Size(snap))
	}
	if err := p.meta.SetSnapshot(snap, inFile); err != nil {
		if errors.Is(err, metafile.ErrTooLarge) {
			return invalidf("%w", err)
		}
		return err
	}
	if !inFile {
		return nil
	}
	if p.written.at != p.meta.Snapshot || errors.Is(p.written.err, ErrNoSpace) { // now room can be made
		d.removeTemporary(p.written.file)
		p.written.err = d.withRoom(func() error {
			p.written = d.writeSnapshot(p.meta.Snapshot, snap.GetData())
			return p.written.err
		})
	}
	if p.written.err != nil {
		return p.written.err
	}
	p.snapFile, p.meta.SnapshotSum = p.written.file, p.written.sum
	p.written = written{}
	return nil
}

func (d *DiskStorage) randomUint64() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(d.host.Random, b[:]); err != nil {
		return 0, fmt.Errorf("mmapwal: random numbers: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}
