package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/seed-2fef92ad/raftwal/encryption"
)

// Writer writes a backup: for each part of a file Begin, Write and End; Finish at the
// end. After an error it must not be used.
type Writer struct {
	tar     *tar.Writer
	out     *sink
	created time.Time
	auth    *encryption.Authenticator // nil: of a log that is not encrypted
}

// sink hashes what goes through it: the parts, and what stands around them.
type sink struct {
	w      io.Writer
	stream hash.Hash
	part   hash.Hash // nil: between parts
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	if s.part != nil {
		s.part.Write(p)
	} else {
		s.stream.Write(p)
	}
	return s.w.Write(p)
}

// NewWriter returns a Writer to w, for a backup made at created.
func NewWriter(w io.Writer, created time.Time) *Writer {
	out := &sink{w: w, stream: sha256.New()}
	return &Writer{tar: tar.NewWriter(out), out: out, created: created}
}

// Begin starts the part of n bytes at an offset of the named file. They are to be
// written next.
func (w *Writer) Begin(name string, offset, n int64) error {
	err := w.tar.WriteHeader(header(fmt.Sprintf("%s@%d", name, offset), n, w.created))
	w.out.part = sha256.New()
	return err
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) { return w.tar.Write(p) }

// End ends the part, and returns its SHA-256.
func (w *Writer) End() string {
	sum := w.out.part.Sum(nil)
	w.out.part = nil
	w.out.stream.Write(sum)
	return hex.EncodeToString(sum)
}

// Authenticate has Finish set the MAC of the manifest.
func (w *Writer) Authenticate(auth *encryption.Authenticator) { w.auth = auth }

// Finish writes the manifest, in which it sets Stream, and then MAC.
func (w *Writer) Finish(m *Manifest) error {
	if err := w.tar.Flush(); err != nil {
		return err
	}
	m.Stream = hex.EncodeToString(w.out.stream.Sum(nil))
	if w.auth != nil {
		if err := m.sign(w.auth); err != nil {
			return err
		}
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	return finish(w.tar, m, b)
}

// finish ends a backup with the manifest m, encoded as b.
func finish(t *tar.Writer, m *Manifest, b []byte) error {
	if err := t.WriteHeader(header(manifestName(b), int64(len(b)), m.Created)); err != nil {
		return err
	}
	if _, err := t.Write(b); err != nil {
		return err
	}
	return t.Close()
}

// header is the header of a member. In GNU's format any size takes one block.
func header(name string, n int64, created time.Time) *tar.Header {
	return &tar.Header{Format: tar.FormatGNU, Typeflag: tar.TypeReg, Name: name, Size: n, Mode: 0o600, ModTime: created.Truncate(time.Second)}
}

const manifestPrefix, manifestSuffix = "manifest-", ".json"

func manifestName(b []byte) string { return manifestPrefix + digest(b) + manifestSuffix }
