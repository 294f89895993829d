package golden

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f.hex")
	text := "# title\n\n  1: 0a 0b # two: bytes\n 5: ff\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := Diff(Read(t, name, 7), []byte{0, 10, 11, 0, 0, 255, 0}); diff != "" {
		t.Error(diff)
	}
}

func TestBadLines(t *testing.T) {
	for _, line := range []string{"x: 00", "00", "3: 0", "3: zz", "1: 00", "7: 0000", "-1: 00"} {
		if _, err := addLine(make([]byte, 8), line, 2); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func TestDiff(t *testing.T) {
	for _, other := range []string{"ab", "abcd", "axc"} {
		if Diff([]byte("abc"), []byte(other)) == "" {
			t.Errorf("abc and %s do not differ", other)
		}
	}
	if diff := Diff([]byte("abc"), []byte("abc")); diff != "" {
		t.Error(diff)
	}
}

func TestDiffLines(t *testing.T) {
	for _, other := range []string{"a\nb", "a\nb\nc\nd", "a\nx\nc"} {
		if DiffLines("a\nb\nc", other) == "" {
			t.Errorf("%q does not differ", other)
		}
	}
	if diff := DiffLines("a\nb", "a\nb"); diff != "" {
		t.Error(diff)
	}
}

func TestPack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(from, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 300_000) // with holes
	large[0], large[200_000] = 1, 2
	files := map[string][]byte{"empty": nil, "large": large, filepath.Join("sub", "file"): []byte("x")}
	for name, p := range files {
		if err := os.WriteFile(filepath.Join(from, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(t.TempDir(), "a.tar.gz")
	Pack(t, archive, from)
	Unpack(t, archive, to)
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(to, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := Diff(got, want); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
