package metafile

import (
	"bytes"
	"errors"
	"io"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// What follows is for tools that look at wal.meta page by page, however damaged
// it is. Nothing of it writes.

// Size of wal.meta in bytes.
const Size = fileSize

// PageView is what one page says.
type PageView struct {
	Meta     Meta
	Sequence uint64
	Used     int   // bytes in use
	Blank    bool  // never written, or zeroed
	Wiped    bool  // it was damaged, and has been overwritten
	Foreign  bool  // not a page of this program
	Err      error // why it cannot be read; nil if it can
	raw      []byte
}

// InspectPage reads a page of page.Size bytes, which it keeps. Of an encrypted log
// neither the MAC is checked nor the snapshot opened; see Unlock.
func InspectPage(p []byte) PageView {
	v := PageView{raw: p}
	v.Meta, v.Err = Decode(p)
	v.Blank = len(bytes.Trim(p, "\x00")) == 0
	v.Wiped = len(bytes.Trim(p, "\xff")) == 0
	v.Foreign = errors.Is(v.Err, errNotOurs)
	if v.Err == nil {
		v.Sequence, v.Used = v.Meta.sequence, int(page.Order.Uint32(p[atUsed:]))
	}
	return v
}

// Unlock checks the MAC of a page that could be read, and opens the snapshot in
// it. encryption.ErrTampered.
func (v *PageView) Unlock(keys *encryption.DirectoryKey) error {
	auth, err := keys.NewAuthenticator()
	if err != nil {
		return err
	}
	if !authentic(v.raw, auth) {
		return encryption.ErrTampered
	}
	return v.Meta.openSnapshot(keys)
}

// InlineBytes returns the size of the snapshot in the page: marshalled, and
// sealed if the log is encrypted.
func (v *PageView) InlineBytes() int {
	if v.Meta.Encrypted {
		return len(v.Meta.sealed)
	}
	return len(v.Meta.snapshot)
}

// InspectSnapshot checks all of the file of m's snapshot, its tags only if there
// are keys, and returns the size of its data. Without all, the header only.
//
// Errors: *corrupt.Error; encryption.ErrTampered, ErrVersion.
func InspectSnapshot(fsys vfs.Files, dir string, m *Meta, keys *encryption.DirectoryKey, all bool) (bytes int64, err error) {
	s, err := (&File{fsys: fsys, dir: dir, keys: keys}).OpenSnapshot(m)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	n := int64(page.Order.Uint64(s.header[40:]))
	if !all {
		return n, nil
	}
	if s.encrypted() && keys != nil {
		_, err := s.Data()
		return n, err
	}
	return n, s.checkSum()
}

// checkSum reads the file in steps, and compares its checksum.
func (s *SnapshotFile) checkSum() error {
	sum := page.Sum(0, s.header[snapAtChecksum+4:])
	body := io.NewSectionReader(s.file, snapHeaderBytes, s.bodyBytes())
	buf := make([]byte, 1<<20)
	for {
		n, err := body.Read(buf)
		sum = page.Sum(sum, buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if sum != page.Order.Uint32(s.header[snapAtChecksum:]) {
		return corrupt.At(s.name, 0, "%v", errChecksum)
	}
	return nil
}
