package mmapwal

import (
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// watchedDir tells of each file that is opened.
type watchedDir struct {
	vfs.Dir
	opened func(name string)
}

func (w watchedDir) Open(name string, readOnly bool) (vfs.File, error) {
	w.opened(name)
	return w.Dir.Open(name, readOnly)
}

// TestRoomySealsNothing: while blocks are made where a file has holes, the background seals no
// file. Zeros that are written for lack of a better way would take the place of its header.
func TestRoomySealsNothing(t *testing.T) {
	d, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.stopAhead()
	reserved, dir := 0, d.fsys
	d.writing.Lock()
	defer d.writing.Unlock()
	d.fsys = watchedDir{dir, func(name string) {
		reserved++
		if d.ahead.sealing.TryLock() {
			d.ahead.sealing.Unlock()
			t.Errorf("%s: blocks are made while a file may be sealed", name)
		}
	}}
	d.holed = []string{entryfile.Name(1), metafile.Name}
	err = d.roomy()
	d.fsys = dir
	if err != nil || reserved != 2 || len(d.holed) > 0 {
		t.Errorf("%v, %d files looked at, %q left", err, reserved, d.holed)
	}
}
