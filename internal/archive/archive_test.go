package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"
	"testing/iotest"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/archive"
)

// sample returns a backup of two parts, and what they hold.
func sample(t *testing.T) ([]byte, archive.Manifest) {
	t.Helper()
	created := time.Date(2026, 11, 21, 14, 9, 53, 123, time.UTC)
	var b bytes.Buffer
	w := archive.NewWriter(&b, created)
	for _, part := range []struct {
		name    string
		offset  int64
		content string
	}{{"00001.wal", 1 << 20, "records"}, {"wal.meta", 0, "meta"}} {
		if err := w.Begin(part.name, part.offset, int64(len(part.content))); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, part.content); err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256([]byte(part.content)); w.End() != hex.EncodeToString(sum[:]) {
			t.Fatal("End returned another hash")
		}
	}
	m := archive.Manifest{
		Version: archive.Version, Created: created, LogID: "0123456789abcdef", RaftID: 1 << 63, First: 1, Last: 7,
		HardState: &archive.HardState{Term: 3, Vote: 2, Commit: 7},
		Files: []archive.File{{Name: "00001.wal", Size: 2 << 20, First: 1, Last: 7,
			Data: []archive.Range{{Offset: 1 << 20, Bytes: 7, SHA256: "…"}}}},
	}
	if err := w.Finish(&m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), m
}

func TestRoundTrip(t *testing.T) {
	b, want := sample(t)
	got := ""
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b)), "halves": iotest.HalfReader(bytes.NewReader(b)),
	} {
		got = ""
		m, err := archive.Read(r, func(p archive.Part) error {
			content, err := io.ReadAll(p.Reader)
			got += p.Name + " " + string(content) + "\n"
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got != "00001.wal records\nwal.meta meta\n" {
			t.Errorf("%s: parts %q", name, got)
		}
		if m.Hash() != want.Hash() || m.RaftID != want.RaftID {
			t.Errorf("%s: manifest %+v, want %+v", name, m, want)
		}
	}
	if _, err := archive.Read(bytes.NewReader(b), nil); err != nil {
		t.Errorf("without a look at the parts: %v", err)
	}
}

// TestEveryByte: no byte can change, nothing be cut off or added.
func TestEveryByte(t *testing.T) {
	b, _ := sample(t)
	refused := func(what string, at int, b []byte) {
		t.Helper()
		m, err := archive.Read(bytes.NewReader(b), nil)
		if !errors.Is(err, archive.ErrDamaged) && !errors.Is(err, archive.ErrVersion) {
			t.Errorf("%s %d of %d: %v", what, at, len(b), err)
		}
		if m.Version != 0 {
			t.Errorf("%s %d: returned %+v", what, at, m)
		}
	}
	for at := range b {
		bad := bytes.Clone(b)
		bad[at] ^= 1 << (at % 8)
		refused("flipped byte", at, bad)
		refused("cut at", at, b[:at])
	}
	refused("a byte behind", len(b), append(bytes.Clone(b), 0))
	refused("twice", len(b), append(bytes.Clone(b), b...))
}

func TestErrorsOfOthers(t *testing.T) {
	b, _ := sample(t)
	mine := errors.New("mine")
	if _, err := archive.Read(bytes.NewReader(b), func(archive.Part) error { return mine }); !errors.Is(err, mine) || errors.Is(err, archive.ErrDamaged) {
		t.Errorf("of take: %v", err)
	}
	r := io.MultiReader(bytes.NewReader(b[:1000]), iotest.ErrReader(mine))
	if _, err := archive.Read(r, nil); !errors.Is(err, mine) || errors.Is(err, archive.ErrDamaged) {
		t.Errorf("of the reader: %v", err)
	}
}

// TestForeignMembers: a name can lead nowhere but to a file of the log.
func TestForeignMembers(t *testing.T) {
	for _, name := range []string{"../00001.wal", "/etc/passwd", "00001.wal.tmp", "1.wal", "", "wal.meta/x"} {
		var b bytes.Buffer
		w := archive.NewWriter(&b, time.Time{})
		if err := w.Begin(name, 0, 0); err != nil {
			t.Fatal(err)
		}
		w.End()
		if err := w.Finish(&archive.Manifest{Version: archive.Version}); err != nil {
			t.Fatal(err)
		}
		called := false
		_, err := archive.Read(&b, func(archive.Part) error { called = true; return nil })
		if !errors.Is(err, archive.ErrDamaged) || called {
			t.Errorf("%q: %v, handed out: %v", name, err, called)
		}
	}
}

// TestSparseMembers: a few bytes of a backup do not stand for many of a log.
func TestSparseMembers(t *testing.T) {
	const size = 1 << 50
	records := map[string]string{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "00001.wal@0", "GNU.sparse.realsize": strconv.FormatInt(size, 10)}
	content := []byte(fmt.Sprintf("1\n%d\n0\n", int64(size))) // where it is not zero: nowhere
	for _, name := range []string{"00001.wal@0", "manifest-0.json"} {
		records["GNU.sparse.name"] = name
		var b bytes.Buffer
		b.Write(pax(records))
		w := tar.NewWriter(&b)
		must(t, w.WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/x", Size: 512}))
		_, err := w.Write(append(content, make([]byte, 512-len(content))...))
		must(t, err)
		must(t, w.Close())
		called := false
		if _, err := archive.Read(&b, func(archive.Part) error { called = true; return nil }); !errors.Is(err, archive.ErrDamaged) || called {
			t.Errorf("%s: %v, handed out: %v", name, err, called)
		}
	}
}

// pax returns a header of PAX records, some of which a tar.Writer does not write.
func pax(records map[string]string) []byte {
	var content []byte
	for key, value := range records {
		n := len(key) + len(value) + 3
		for n != len(key)+len(value)+3+len(strconv.Itoa(n)) {
			n = len(key) + len(value) + 3 + len(strconv.Itoa(n))
		}
		content = fmt.Appendf(content, "%d %s=%s\n", n, key, value)
	}
	h := make([]byte, 512, 1024)
	copy(h, "PaxHeaders/x")
	copy(h[100:], "0000600\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        x", len(content)))
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(h, content...), make([]byte, 512-len(content)%512)...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestForeignManifests: nor can a manifest, whose hash anybody can make right.
func TestForeignManifests(t *testing.T) {
	for name, f := range map[string]archive.File{
		"path":           {Name: "../00001.wal"},
		"no name":        {},
		"negative size":  {Name: "00001.wal", Size: -1},
		"negative range": {Name: "00001.wal", Size: 10, Head: []archive.Range{{Offset: 0, Bytes: -1}}},
		"negative place": {Name: "00001.wal", Size: 10, Data: []archive.Range{{Offset: -5, Bytes: 1}}},
		"beyond the end": {Name: "00001.wal", Size: 10, Data: []archive.Range{{Offset: 5, Bytes: 6}}},
		"far beyond":     {Name: "00001.wal", Size: 10, Data: []archive.Range{{Offset: 1<<63 - 1, Bytes: 1<<63 - 1}}},
	} {
		var b bytes.Buffer
		w := archive.NewWriter(&b, time.Time{})
		if err := w.Finish(&archive.Manifest{Version: archive.Version, Files: []archive.File{f}}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Read(&b, nil); !errors.Is(err, archive.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewerVersion(t *testing.T) {
	var b bytes.Buffer
	w := archive.NewWriter(&b, time.Time{})
	if err := w.Finish(&archive.Manifest{Version: archive.Version + 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Read(&b, nil); !errors.Is(err, archive.ErrVersion) {
		t.Errorf("error %v", err)
	}
}
