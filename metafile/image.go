package metafile

import (
	"io"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// Image returns the content of a wal.meta that holds m, for a copy of the log. It
// may be called beside Refresh, not beside the methods that store.
func (f *File) Image(m Meta) ([]byte, error) {
	var auth *encryption.Authenticator
	if m.Encrypted {
		var err error
		if auth, err = f.keys.NewAuthenticator(); err != nil {
			return nil, err
		}
		if err := m.sealSnapshot(f.keys, f.random); err != nil {
			return nil, err
		}
	}
	content := make([]byte, fileSize)
	for i := range 2 {
		m.Encode(content[i*page.Size:(i+1)*page.Size], auth)
	}
	return content, nil
}

// SnapshotHeaderBytes is the size of the part of a snapshot file that holds the
// checksum of the rest.
const SnapshotHeaderBytes = snapHeaderBytes

// Size returns the length of the file in bytes.
func (s *SnapshotFile) Size() int64 { return snapHeaderBytes + s.bodyBytes() }

// ReadAt implements io.ReaderAt over the whole file, the header included. Calls
// may run concurrently.
func (s *SnapshotFile) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(s.file, 0, s.Size()).ReadAt(p, off)
}

// Sum returns the checksum of the file as its header says it, and that of the
// header alone, which body, everything behind the header, continues to the first.
func (s *SnapshotFile) Sum() (want, start uint32) {
	return page.Order.Uint32(s.header[snapAtChecksum:]), page.Sum(0, s.header[snapAtChecksum+4:])
}
