package metafile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// A snapshot file, <term>-<index>.snap, both as 16 hexadecimal digits:
//
//	at  size  field
//	 0     8  magic "RAFTWALs"
//	 8     4  format version
//	12     4  CRC-32C of all that follows
//	16     8  log ID
//	24     8  snapshot term
//	32     8  snapshot index
//	40     8  length of the data
//	48     -  the data
const (
	snapMagic       = "RAFTWALs"
	snapHeaderBytes = 48
	snapAtChecksum  = 12
)

// SnapshotSuffix ends the names of snapshot files.
const SnapshotSuffix = ".snap"

// SnapshotName returns the base name of the file for the snapshot at p.
func SnapshotName(p Position) string {
	return fmt.Sprintf("%016x-%016x%s", p.Term, p.Index, SnapshotSuffix)
}

// WriteSnapshot stores data as the snapshot at p of log logID under a temporary
// name, durably, and returns that name. Renaming it to SnapshotName and syncing
// the directory publishes it. On an error nothing is left behind.
func WriteSnapshot(fsys vfs.FS, dir string, logID uint64, p Position, data []byte) (_ string, err error) {
	tmp := filepath.Join(dir, SnapshotName(p)+".tmp")
	f, err := vfs.CreateAnew(fsys, tmp)
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = fsys.Remove(tmp) // the next Open tries again
		}
	}()
	header := snapshotHeader(logID, p, data)
	size := int64(len(header) + len(data))
	if err := f.Truncate(size); err != nil {
		return "", err
	}
	if err := f.Reserve(0, size); err != nil {
		return "", err
	}
	if _, err := f.WriteAt(header, 0); err != nil {
		return "", err
	}
	if _, err := f.WriteAt(data, snapHeaderBytes); err != nil {
		return "", err
	}
	return tmp, f.Sync()
}

func snapshotHeader(logID uint64, p Position, data []byte) []byte {
	header := make([]byte, snapHeaderBytes)
	copy(header, snapMagic)
	page.Order.PutUint32(header[8:], Version)
	page.Order.PutUint64(header[16:], logID)
	page.Order.PutUint64(header[24:], p.Term)
	page.Order.PutUint64(header[32:], p.Index)
	page.Order.PutUint64(header[40:], uint64(len(data)))
	sum := page.Sum(page.Sum(0, header[snapAtChecksum+4:]), data)
	page.Order.PutUint32(header[snapAtChecksum:], sum)
	return header
}

// SnapshotFile is an open snapshot file. It can be read even when its name is
// removed.
type SnapshotFile struct {
	file   vfs.File
	name   string
	header []byte
}

// OpenSnapshot opens the snapshot file at p and checks all of it but the
// checksum, in a time that does not grow with its size. A file that is missing,
// damaged or another's is a *corrupt.Error.
func OpenSnapshot(fsys vfs.FS, dir string, logID uint64, p Position) (*SnapshotFile, error) {
	name := filepath.Join(dir, SnapshotName(p))
	f, err := fsys.Open(name, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (%w)", corrupt.At(name, 0, "the snapshot file is missing"), err)
	}
	if err != nil {
		return nil, err
	}
	header, err := checkSnapshot(f, name, logID, p)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &SnapshotFile{file: f, name: name, header: header}, nil
}

// Data reads the data and checks it: *corrupt.Error.
func (s *SnapshotFile) Data() ([]byte, error) {
	data := make([]byte, page.Order.Uint64(s.header[40:]))
	if _, err := io.ReadFull(io.NewSectionReader(s.file, snapHeaderBytes, int64(len(data))), data); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, corrupt.At(s.name, 0, "cut short: %d bytes of data are not there", len(data))
		}
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if page.Sum(page.Sum(0, s.header[snapAtChecksum+4:]), data) != page.Order.Uint32(s.header[snapAtChecksum:]) {
		return nil, corrupt.At(s.name, 0, "%v", errChecksum)
	}
	return data, nil
}

// Close closes the file.
func (s *SnapshotFile) Close() error { return s.file.Close() }

// ReadSnapshot returns the data of the snapshot file at p. Errors as those of
// OpenSnapshot and Data.
func ReadSnapshot(fsys vfs.FS, dir string, logID uint64, p Position) ([]byte, error) {
	s, err := OpenSnapshot(fsys, dir, logID, p)
	if err != nil {
		return nil, err
	}
	data, err := s.Data()
	return data, errors.Join(err, s.Close())
}

// CheckSnapshot does what OpenSnapshot does, and closes the file.
func CheckSnapshot(fsys vfs.FS, dir string, logID uint64, p Position) error {
	s, err := OpenSnapshot(fsys, dir, logID, p)
	if err != nil {
		return err
	}
	return s.Close()
}

// checkSnapshot returns the header of a snapshot file if it fits the file.
func checkSnapshot(f vfs.File, name string, logID uint64, p Position) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < snapHeaderBytes {
		return nil, corrupt.At(name, size, "cut short: the header has %d bytes", snapHeaderBytes)
	}
	header := make([]byte, snapHeaderBytes)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, snapHeaderBytes), header); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if string(header[:len(snapMagic)]) != snapMagic {
		return nil, corrupt.At(name, 0, "no snapshot file: %v", errNotOurs)
	}
	if v := page.Order.Uint32(header[8:]); v != Version {
		return nil, fmt.Errorf("%w: %w", corrupt.At(name, 8, "format %d", v), ErrVersion)
	}
	if got := page.Order.Uint64(header[16:]); got != logID {
		return nil, corrupt.At(name, 16, "belongs to another log (%016x, not %016x)", got, logID)
	}
	if got := (Position{page.Order.Uint64(header[32:]), page.Order.Uint64(header[24:])}); got != p {
		return nil, corrupt.At(name, 24, "holds the snapshot %+v, not %+v", got, p)
	}
	if n := page.Order.Uint64(header[40:]); n != uint64(size-snapHeaderBytes) {
		return nil, corrupt.At(name, size, "the header promises %d bytes of data, there are %d", n, size-snapHeaderBytes)
	}
	return header, nil
}
