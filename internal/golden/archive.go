package golden

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Unpack unpacks the named .tar.gz into the directory to. Zeros become holes.
func Unpack(tb testing.TB, name, to string) {
	tb.Helper()
	if err := unpack(name, to); err != nil {
		tb.Fatalf("unpack %s: %v", name, err)
	}
}

func unpack(name, to string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, filepath.Clean("/"+h.Name))
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(path, 0o700)
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), writeSparse(path, tr))
		}
		if err != nil {
			return err
		}
	}
}

// writeSparse writes a file, with holes where from has zeros.
func writeSparse(path string, from io.Reader) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(from, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := f.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return f.Truncate(at)
		case err != nil:
			return err
		}
	}
}

// Pack writes the files in dir into the named .tar.gz. The same files give the
// same bytes.
func Pack(tb testing.TB, name, dir string) {
	tb.Helper()
	var out bytes.Buffer
	zw, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		tw := tar.NewWriter(zw)
		err = errors.Join(pack(tw, dir), tw.Close(), zw.Close())
	}
	if err == nil {
		err = os.WriteFile(name, out.Bytes(), 0o600)
	}
	if err != nil {
		tb.Fatalf("pack %s: %v", name, err)
	}
}

func pack(tw *tar.Writer, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, ModTime: time.Unix(0, 0)}
		if entry.IsDir() {
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o700
			return tw.WriteHeader(h)
		}
		p, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		h.Size = int64(len(p))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = tw.Write(p)
		return err
	})
}
