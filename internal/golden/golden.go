// Package golden reads, for tests, annotated bytes, and archives of directories
// with what they hold.
//
// A line of annotated bytes is "offset: bytes # what they are", the offset decimal
// and the bytes hexadecimal, with spaces as one likes. Bytes that no line has are
// zero.
package golden

import (
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Read returns the size bytes that the named file describes.
func Read(tb testing.TB, name string, size int) []byte {
	tb.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	out := make([]byte, size)
	end := 0
	for i, line := range strings.Split(string(text), "\n") {
		if end, err = addLine(out, line, end); err != nil {
			tb.Fatalf("%s:%d: %v", name, i+1, err)
		}
	}
	return out
}

// addLine puts the bytes of one line into out, not before the offset from, and
// returns where they end.
func addLine(out []byte, line string, from int) (end int, err error) {
	line, _, _ = strings.Cut(line, "#")
	if line = strings.Join(strings.Fields(line), ""); line == "" {
		return from, nil
	}
	at, digits, _ := strings.Cut(line, ":")
	offset, err := strconv.Atoi(at)
	if err != nil {
		return 0, err
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return 0, err
	}
	if offset < from || offset+len(b) > len(out) {
		return 0, fmt.Errorf("offset %d with %d bytes overlaps what is before it, or ends behind %d", offset, len(b), len(out))
	}
	return offset + copy(out[offset:], b), nil
}

// Diff says at which offset got and want differ first, or "" if they do not.
func Diff(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Sprintf("offset %d: %02x, want %02x", i, got[i], want[i])
		}
	}
	return ""
}

// DiffLines says which line of two texts differs first, or "" if they are equal.
func DiffLines(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: %q, want %q", i+1, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		return fmt.Sprintf("%d lines, want %d", len(g), len(w))
	}
	return ""
}
