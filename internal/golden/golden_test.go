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
