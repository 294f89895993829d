package repair

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// TestRehearsalFault: what the disk does not give is an error when a file grows, too.
func TestRehearsalFault(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	content := make([]byte, 64<<10)
	for k := range content {
		content[k] = 1
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := rehearse(vfs.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	f, err := r.Open(name, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{2}, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 0); err != nil { // as a disk that fails to read
		t.Fatal(err)
	}
	if err := f.Truncate(128 << 10); !errors.Is(err, vfs.ErrFault) {
		t.Errorf("%v, want a fault", err)
	}
}
