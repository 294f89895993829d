package mmapwal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// plan is what a Save is going to do. Its slices are used again by the next one.
type plan struct {
	snap    *raftpb.Snapshot // nil: none
	empties bool             // the snapshot leaves no entry of the log
	entries []*raftpb.Entry  // those to be stored

	meta     metafile.Meta // with the snapshot in it
	snapFile string        // temporary name of the snapshot's data, "" if inline

	inTail int               // how many of entries go to the tail
	files  []*entryfile.File // files for the rest, prepared but not published
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
	if d.tail != nil && (!p.empties || d.tailIsFresh()) {
		count, bytes := d.tail.Room(rest)
		if err := d.tail.Reserve(bytes, count); err != nil {
			return reserving(err)
		}
		p.inTail, rest = count, rest[count:]
	}
	number := d.next
	for len(rest) > 0 || p.empties && !d.tailIsFresh() && len(p.files) == 0 {
		before := d.before(p)
		sealed := before != nil && (len(p.files) > 0 || !p.empties || d.tailIsFresh())
		f, count, err := d.prepareFile(number, before, sealed, rest)
		if err != nil {
			return err
		}
		p.files, p.counts = append(p.files, f), append(p.counts, count)
		rest = rest[count:]
		number++
	}
	return nil
}

// tailIsFresh: the tail has not taken a record yet.
func (d *DiskStorage) tailIsFresh() bool {
	return d.tail != nil && d.tail.End() == entryfile.DataStart
}

// discard removes what makeRoom prepared and nobody used.
func (d *DiskStorage) discard(p *plan) {
	for _, f := range p.files {
		f.Discard()
	}
	if p.snapFile != "" {
		_ = d.fsys.Remove(p.snapFile) // else the next Open removes it
	}
	p.reset()
}

// prepareFile makes the file with the given number ready for as many of es as it
// takes, at least one.
// before is the file in front of it, nil if there is none; sealed says whether
// that one is going to be before this one gets its name.
func (d *DiskStorage) prepareFile(number uint64, before *entryfile.File, sealed bool, es []*raftpb.Entry) (*entryfile.File, int, error) {
	salt, err := d.randomUint64()
	if err != nil {
		return nil, 0, err
	}
	spec := entryfile.Spec{
		Number: number,
		LogID:  d.meta.Meta().LogID, Salt: uint32(salt), DataBytes: d.opts.FileDataSize,
		Keys: d.meta.Keys(), Random: d.host.Random,
	}
	if before != nil {
		spec.Prev, spec.PrevSalt, spec.PrevSealed = before.Number(), before.Salt(), sealed
	}
	if len(es) > 0 {
		spec.DataBytes = max(spec.DataBytes, spec.RecordBytes(len(es[0].GetData())))
	}
	count, bytes := spec.Fit(es)
	f, err := entryfile.Prepare(d.fsys, d.dir, spec, bytes, count)
	if err != nil {
		return nil, 0, reserving(err)
	}
	return f, count, nil
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
	tmp, err := d.meta.WriteSnapshot(p.meta.Snapshot, snap.GetData())
	if err != nil {
		return reserving(err)
	}
	p.snapFile = tmp
	return nil
}

func (d *DiskStorage) randomUint64() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(d.host.Random, b[:]); err != nil {
		return 0, fmt.Errorf("mmapwal: random numbers: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}
