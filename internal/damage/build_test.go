package damage

import (
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestMoments: every moment of a log reads as it should.
func TestMoments(t *testing.T) {
	l := Build(1, mmapwal.HardSync, 4000)
	l.Close()
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
	disk := NewDisk(Dir)
	for _, m := range l.Moments {
		disk.Load(m.Image)
		d, err := Open(disk, 1, Options())
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		r, err := Read(d)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := r.Wrong(m.State); wrong != "" || len(r.Errs) > 0 || r.Last() != m.State.Last() {
			t.Errorf("%s: %s, %v, last %d of %d", m.Name, wrong, r.Errs, r.Last(), m.State.Last())
		}
	}
}
