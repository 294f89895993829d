package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// MaxManifest is the size of the largest manifest that is read, in bytes: that of
// some 400,000 files.
const MaxManifest = 256 << 20

// Part is a part of a file as it comes out of a backup. Nothing vouches for it
// before Read has returned.
type Part struct {
	Name   string // base name of a file of a log, never a path
	Offset int64
	Bytes  int64
	Reader io.Reader // of the content
}

// Read reads a backup to its end, hands each part to take, which reads it or not,
// and checks every byte. take may be nil.
//
// Errors: ErrDamaged, ErrVersion; that of r or of take.
func Read(r io.Reader, take func(Part) error) (Manifest, error) {
	in := &reader{lag: newLag(r), take: take}
	m, err := in.read()
	switch {
	case err == nil:
		return m, nil
	case in.failed != nil:
		err = in.failed
	case in.lag.failed != nil:
		err = in.lag.failed
	case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion):
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return Manifest{}, err
}

type reader struct {
	lag    *lag
	take   func(Part) error
	failed error // that of take
}

func (in *reader) read() (m Manifest, err error) {
	t := tar.NewReader(in.lag)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return m, fmt.Errorf("%w: it has no manifest", ErrDamaged)
		}
		if err != nil {
			return m, err
		}
		if strings.HasPrefix(h.Name, manifestPrefix) {
			return in.readManifest(t, h)
		}
		if err := in.readPart(t, h); err != nil {
			return m, err
		}
	}
}

var partName = regexp.MustCompile(`^` + fileNames + `@([0-9]{1,18})$`)

func (in *reader) readPart(t *tar.Reader, h *tar.Header) error {
	match := partName.FindStringSubmatch(h.Name)
	if match == nil || !isOurs(h) {
		return fmt.Errorf("%w: %q is no part of a log", ErrDamaged, h.Name)
	}
	offset, err := strconv.ParseInt(match[2], 10, 64)
	if err != nil {
		return err
	}
	in.lag.beginPart()
	r := &partReader{t, in.lag}
	if in.take != nil {
		in.failed = in.take(Part{Name: match[1], Offset: offset, Bytes: h.Size, Reader: r})
	}
	if in.failed != nil {
		return in.failed
	}
	_, err = io.Copy(io.Discard, r)
	in.lag.endPart()
	return err
}

// isOurs reports whether a Writer writes such a member. Others can say that they are large,
// sparse ones that is, in a few bytes.
func isOurs(h *tar.Header) bool {
	return h.Typeflag == tar.TypeReg && h.Format == tar.FormatGNU && len(h.PAXRecords) == 0
}

// partReader is a reader of a part. What is wrong with the backup is ErrDamaged.
type partReader struct {
	tar *tar.Reader
	lag *lag
}

// Read implements io.Reader.
func (p *partReader) Read(b []byte) (int, error) {
	n, err := p.tar.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && p.lag.failed == nil {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return n, err
}

// readManifest reads the last member, whose header was just read, and the end.
func (in *reader) readManifest(t *tar.Reader, h *tar.Header) (m Manifest, err error) {
	stream, block := in.lag.state()
	if h.Size > MaxManifest || !isOurs(h) {
		return m, fmt.Errorf("%w: a manifest of %d bytes that no backup has", ErrDamaged, h.Size)
	}
	b, err := io.ReadAll(t)
	if err != nil {
		return m, err
	}
	if h.Name != manifestName(b) {
		return m, fmt.Errorf("%w: the manifest does not match its hash", ErrDamaged)
	}
	if m, err = DecodeManifest(b); err != nil {
		return m, err
	}
	if m.Stream != stream {
		return m, fmt.Errorf("%w: its content does not match the manifest", ErrDamaged)
	}
	var want bytes.Buffer
	if err := finish(tar.NewWriter(&want), &m, b); err != nil {
		return m, err
	}
	rest := want.Bytes()[len(block)+len(b):]
	got, err := io.ReadAll(io.LimitReader(in.lag, int64(len(rest))+1))
	if err != nil {
		return m, err
	}
	if !bytes.HasPrefix(want.Bytes(), block) || !bytes.Equal(got, rest) {
		return m, fmt.Errorf("%w: what stands around the manifest is not what was written", ErrDamaged)
	}
	return m, nil
}

// lag hashes what is read through it as the Writer's sink does, but for the last block
// of tar, which is the header that was read last.
type lag struct {
	r      io.Reader
	stream hash.Hash
	part   hash.Hash // nil: between parts
	block  [512]byte
	n      int   // bytes in it
	failed error // of r
}

func newLag(r io.Reader) *lag { return &lag{r: r, stream: sha256.New()} }

// Read implements io.Reader.
func (l *lag) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		l.failed = err
	}
	if l.part != nil {
		l.part.Write(p[:n])
	} else {
		l.add(p[:n])
	}
	return n, err
}

func (l *lag) add(p []byte) {
	out := max(0, l.n+len(p)-len(l.block)) // how many bytes leave the block
	k := min(out, l.n)
	l.stream.Write(l.block[:k])
	l.stream.Write(p[:out-k])
	l.n = copy(l.block[:], l.block[k:l.n])
	l.n += copy(l.block[l.n:], p[out-k:])
}

func (l *lag) beginPart() {
	l.stream.Write(l.block[:l.n])
	l.n, l.part = 0, sha256.New()
}

func (l *lag) endPart() {
	l.stream.Write(l.part.Sum(nil))
	l.part = nil
}

// state returns the hash of what came before the last block, and that block.
func (l *lag) state() (stream string, block []byte) {
	return hex.EncodeToString(l.stream.Sum(nil)), bytes.Clone(l.block[:l.n])
}
