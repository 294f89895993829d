package metafile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// A snapshot file, <term>-<index>.snap, both as 16 hexadecimal digits:
//
//	at  size  field
//	 0     8  magic "RAFTWALs"
//	 8     2  flags: 1 encrypted
//	10     2  format version
//	12     4  CRC-32C of all that follows
//	16     8  log ID
//	24     8  snapshot term
//	32     8  snapshot index
//	40     8  length of the data
//	48     -  the data
//
// and in an encrypted one, instead of the data:
//
//	48     4  length of the wrapped data key
//	52    60  the data key, wrapped by the directory key, and zeros
//	112    -  the data as a stream (package encryption)
const (
	snapMagic       = "RAFTWALs"
	snapHeaderBytes = 48
	snapAtFlags     = 8
	snapAtVersion   = 10
	snapAtChecksum  = 12

	snapFlagEncrypted = 1
	snapKeyBytes      = 64 // of an encrypted file, behind the header
)

// SnapshotSuffix ends the names of snapshot files.
const SnapshotSuffix = ".snap"

// SnapshotName returns the base name of the file for the snapshot at p.
func SnapshotName(p Position) string {
	return fmt.Sprintf("%016x-%016x%s", p.Term, p.Index, SnapshotSuffix)
}

// WriteSnapshot stores data as the snapshot at p under a temporary name of its own, durably,
// and returns that name. It may be called beside all methods but Open, Unlock, Encrypt and Close. Renaming it to SnapshotName and syncing the directory
// publishes it; sum is for Meta.SnapshotSum. It is encrypted if the log is. On an error
// nothing is left behind.
func (f *File) WriteSnapshot(p Position, data []byte) (_ string, sum uint64, err error) {
	s := &snapshotWriter{header: snapshotHeader(f.logID, p, len(data))}
	size := snapHeaderBytes + int64(len(data))
	if f.keys != nil {
		if err := s.encrypt(f.keys, f.random, f.logID, p); err != nil {
			return "", 0, err
		}
		size = snapHeaderBytes + snapKeyBytes + encryption.StreamBytes(int64(len(data)))
	}
	var tmp string
	for s.file == nil { // a name that is taken is another program's: Open removes what is left
		tmp = filepath.Join(f.dir, fmt.Sprintf("%s.%d.tmp", SnapshotName(p), f.written.Add(1)))
		if s.file, err = f.fsys.Create(tmp); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", 0, err
		}
	}
	defer func() {
		err = errors.Join(err, s.file.Close())
		if err != nil {
			_ = f.fsys.Remove(tmp) // the next Open tries again
		}
	}()
	if err := s.file.Truncate(size); err != nil {
		return "", 0, err
	}
	if err := s.file.Reserve(0, size); err != nil {
		return "", 0, err
	}
	if err := s.write(data); err != nil {
		return "", 0, err
	}
	return tmp, snapshotSum(s.header, s.wrapped), nil
}

// snapshotSum tells a snapshot file from any other, of another copy of the log with the same
// snapshot index and term, too: the header has the checksum of the rest, the wrapped key of an
// encrypted one is random.
func snapshotSum(header, wrapped []byte) uint64 {
	sum := sha256.New()
	sum.Write(header)
	sum.Write(wrapped)
	return max(page.Order.Uint64(sum.Sum(nil)), 1)
}

// snapshotWriter writes a snapshot file: the header last, since it has the
// checksum of the rest.
type snapshotWriter struct {
	file    vfs.File
	header  []byte
	key     *encryption.FileKey // nil: not encrypted
	wrapped []byte
	ad      []byte
	at      int64
	sum     uint32
}

func (s *snapshotWriter) encrypt(keys *encryption.DirectoryKey, random io.Reader, logID uint64, p Position) error {
	s.ad = snapshotAD(logID, p)
	key, wrapped, err := keys.NewFileKey(random, s.ad)
	if err != nil {
		return err
	}
	page.Order.PutUint16(s.header[snapAtFlags:], snapFlagEncrypted)
	s.key, s.wrapped = key, make([]byte, snapKeyBytes)
	page.Order.PutUint32(s.wrapped, uint32(len(wrapped)))
	copy(s.wrapped[4:], wrapped)
	return nil
}

func (s *snapshotWriter) write(data []byte) error {
	s.at, s.sum = snapHeaderBytes, page.Sum(0, s.header[snapAtChecksum+4:])
	if err := s.writeBody(data); err != nil {
		return err
	}
	page.Order.PutUint32(s.header[snapAtChecksum:], s.sum)
	if _, err := s.file.WriteAt(s.header, 0); err != nil {
		return err
	}
	return s.file.Sync()
}

func (s *snapshotWriter) writeBody(data []byte) error {
	if s.key == nil {
		_, err := s.Write(data)
		return err
	}
	defer s.key.Wipe()
	if _, err := s.Write(s.wrapped); err != nil {
		return err
	}
	return s.key.EncryptTo(s, data, s.ad)
}

// Write appends to the file.
func (s *snapshotWriter) Write(p []byte) (int, error) {
	n, err := s.file.WriteAt(p, s.at)
	s.at += int64(n)
	s.sum = page.Sum(s.sum, p)
	return n, err
}

func snapshotHeader(logID uint64, p Position, n int) []byte {
	header := make([]byte, snapHeaderBytes)
	copy(header, snapMagic)
	page.Order.PutUint16(header[snapAtVersion:], Version)
	page.Order.PutUint64(header[16:], logID)
	page.Order.PutUint64(header[24:], p.Term)
	page.Order.PutUint64(header[32:], p.Index)
	page.Order.PutUint64(header[40:], uint64(n))
	return header
}

// snapshotAD says what snapshot a data key and a stream are for.
func snapshotAD(logID uint64, p Position) []byte {
	ad := []byte("snapshot file")
	ad = page.Order.AppendUint64(ad, logID)
	ad = page.Order.AppendUint64(ad, p.Term)
	return page.Order.AppendUint64(ad, p.Index)
}

// SnapshotFile is an open snapshot file. It can be read even when its name is
// removed.
type SnapshotFile struct {
	file   vfs.File
	name   string
	header []byte
	keys   *encryption.DirectoryKey
	ad     []byte
}

// OpenSnapshot opens the file of m's snapshot and checks all of it but the
// checksum, in a time that does not grow with its size. It may be called
// concurrently with all methods but Unlock, Encrypt and Close. A file that is
// missing, damaged or another's is a *corrupt.Error; encryption.ErrTampered.
func (f *File) OpenSnapshot(m *Meta) (*SnapshotFile, error) {
	s := &SnapshotFile{name: filepath.Join(f.dir, SnapshotName(m.Snapshot)), keys: f.keys, ad: snapshotAD(m.LogID, m.Snapshot)}
	var err error
	s.file, err = f.fsys.Open(s.name, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (%w)", corrupt.At(s.name, 0, "the snapshot file is missing"), err)
	}
	if err != nil {
		return nil, err
	}
	if err := s.check(m); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// Data reads the data and checks it: *corrupt.Error, encryption.ErrTampered.
func (s *SnapshotFile) Data() ([]byte, error) {
	body := make([]byte, s.bodyBytes())
	if _, err := io.ReadFull(io.NewSectionReader(s.file, snapHeaderBytes, int64(len(body))), body); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, corrupt.At(s.name, 0, "cut short: %d bytes are not there", len(body))
		}
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if page.Sum(page.Sum(0, s.header[snapAtChecksum+4:]), body) != page.Order.Uint32(s.header[snapAtChecksum:]) {
		return nil, corrupt.At(s.name, 0, "%v", errChecksum)
	}
	if !s.encrypted() {
		return body, nil
	}
	data, err := s.decrypt(body)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", corrupt.At(s.name, snapHeaderBytes, "cannot be decrypted"), err)
	}
	return data, nil
}

func (s *SnapshotFile) decrypt(body []byte) ([]byte, error) {
	n := page.Order.Uint32(body)
	if n > snapKeyBytes-4 {
		return nil, encryption.ErrTampered
	}
	key, err := s.keys.UnwrapFileKey(body[4:4+n], s.ad)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	return key.Decrypt(body[snapKeyBytes:], s.ad)
}

func (s *SnapshotFile) encrypted() bool {
	return page.Order.Uint16(s.header[snapAtFlags:])&snapFlagEncrypted != 0
}

// bodyBytes is how many bytes follow the header.
func (s *SnapshotFile) bodyBytes() int64 {
	n := int64(page.Order.Uint64(s.header[40:]))
	if s.encrypted() {
		return snapKeyBytes + encryption.StreamBytes(n)
	}
	return n
}

// Close closes the file.
func (s *SnapshotFile) Close() error { return s.file.Close() }

// ReadSnapshot returns the data of m's snapshot file. Errors as those of
// OpenSnapshot and Data.
func (f *File) ReadSnapshot(m *Meta) ([]byte, error) {
	s, err := f.OpenSnapshot(m)
	if err != nil {
		return nil, err
	}
	data, err := s.Data()
	return data, errors.Join(err, s.Close())
}

// CheckSnapshot does what OpenSnapshot does, and closes the file.
func (f *File) CheckSnapshot(m *Meta) error {
	s, err := f.OpenSnapshot(m)
	if err != nil {
		return err
	}
	return s.Close()
}

// check reads the header and compares it with m and the file.
func (s *SnapshotFile) check(m *Meta) error {
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	if size < snapHeaderBytes {
		return corrupt.At(s.name, size, "cut short: the header has %d bytes", snapHeaderBytes)
	}
	s.header = make([]byte, snapHeaderBytes)
	if _, err := io.ReadFull(io.NewSectionReader(s.file, 0, snapHeaderBytes), s.header); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if string(s.header[:len(snapMagic)]) != snapMagic {
		return corrupt.At(s.name, 0, "no snapshot file: %v", errNotOurs)
	}
	if v := page.Order.Uint16(s.header[snapAtVersion:]); v != Version {
		return fmt.Errorf("%w: %w", corrupt.At(s.name, snapAtVersion, "format %d", v), ErrVersion)
	}
	if got := page.Order.Uint64(s.header[16:]); got != m.LogID {
		return corrupt.At(s.name, 16, "belongs to another log (%016x, not %016x)", got, m.LogID)
	}
	if got := (Position{page.Order.Uint64(s.header[32:]), page.Order.Uint64(s.header[24:])}); got != m.Snapshot {
		return corrupt.At(s.name, 24, "holds the snapshot %+v, not %+v", got, m.Snapshot)
	}
	n := page.Order.Uint64(s.header[40:])
	if n > 1<<62 || s.bodyBytes() != size-snapHeaderBytes {
		return corrupt.At(s.name, size, "the header promises %d bytes of data, which do not fit %d bytes of file", n, size)
	}
	if err := s.checkFlags(m); err != nil || m.SnapshotSum == 0 {
		return err
	}
	return s.checkIdentity(m)
}

// checkIdentity makes sure that the file is the one that wal.meta names.
func (s *SnapshotFile) checkIdentity(m *Meta) error {
	var wrapped []byte
	if s.encrypted() {
		wrapped = make([]byte, snapKeyBytes)
		if _, err := io.ReadFull(io.NewSectionReader(s.file, snapHeaderBytes, snapKeyBytes), wrapped); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if snapshotSum(s.header, wrapped) == m.SnapshotSum {
		return nil
	}
	if err := s.checkSum(); err != nil {
		return err // damage, and nobody's intent
	}
	err := corrupt.At(s.name, 0, "this is not the snapshot that was stored, but another of the same index: of another copy of the log, or of another time")
	if s.encrypted() {
		return fmt.Errorf("%w (%w)", err, encryption.ErrTampered)
	}
	return err
}

func (s *SnapshotFile) checkFlags(m *Meta) error {
	flags, want := page.Order.Uint16(s.header[snapAtFlags:]), uint16(0)
	if m.Encrypted && !m.SnapshotPlain {
		want = snapFlagEncrypted
	}
	switch {
	case flags == want:
		return nil
	case m.Encrypted:
		return fmt.Errorf("%w (%w)", corrupt.At(s.name, snapAtFlags, "flags %#x, want %#x", flags, want), encryption.ErrTampered)
	default:
		return corrupt.At(s.name, snapAtFlags, "flags %#x, want %#x", flags, want)
	}
}
