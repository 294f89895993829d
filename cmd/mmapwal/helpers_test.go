package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// safeBuffer is a buffer that a process may write to while a test reads it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// waitFor waits until a text was printed.
func waitFor(ctx context.Context, t *testing.T, b *safeBuffer, text string) {
	t.Helper()
	for !strings.Contains(b.String(), text) {
		if ctx.Err() != nil {
			t.Fatalf("%q was not printed:\n%s", text, b.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// forge changes a byte of the payload of the record at an offset, and makes its
// checksum right.
func forge(t *testing.T, dir, name string, at int64) {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	salt := page.Order.Uint32(p[entryfile.HeaderPages[0]+56:])
	payload := int64(page.Order.Uint32(p[at+28:]))
	p[at+entryfile.RecordHeaderBytes] ^= 1
	page.Order.PutUint32(p[at:], page.Sum(salt, p[at+4:at+entryfile.RecordHeaderBytes+payload]))
	must(t, os.WriteFile(filepath.Join(dir, name), p, 0o600))
}
