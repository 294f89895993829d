package realdisk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"testing"
)

// recording is what a saver did, and what of it reached the disk when.
type recording struct {
	savings
	fs          string
	base        string // the image before
	steps       []step
	events      []event
	begun, done []int     // events before each report
	promises    []promise // after so many steps
}

// record runs a saver on the file system in an image, on a disk that notes what
// it is given. Of the log in it, p is promised.
func record(t *testing.T, fs, image string, s savings, p promise) *recording {
	t.Helper()
	rec := &recording{savings: s, fs: fs, base: image, steps: s.history()}
	live := image + ".live"
	must(t, copyFile(live, rec.base))
	r, file := newRecorder(t, live)
	mnt := mounted(t, fs, file)
	rec.Dir = mnt + "/log"
	runSaver(t, rec.savings,
		func() { rec.begun = append(rec.begun, r.where()) },
		func() { rec.done = append(rec.done, r.where()) })
	rec.events = r.record()
	unmount(t, mnt)
	if len(rec.done) != len(rec.steps) {
		t.Fatalf("seed %d: %d of %d steps done", s.Seed, len(rec.done), len(rec.steps))
	}
	must(t, rec.flushed())
	rec.promises = promisesOf(p, s.start(), rec.steps)
	return rec
}

// flushed: every Save of entries has flushed the disk before it returned.
func (rec *recording) flushed() error {
	for k, s := range rec.steps {
		if len(s.op.Terms) > 0 && lastFlush(rec.events, rec.done[k]) <= rec.begun[k] {
			return fmt.Errorf("seed %d: Save %d returned without a flush; does the loop device not forward them?", rec.Seed, k)
		}
	}
	return nil
}

// disk returns a disk with the image as it was before.
func (rec *recording) disk(t *testing.T) *disk {
	t.Helper()
	f, err := os.OpenFile(rec.base, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return &disk{events: rec.events, flushed: f, fs: rec.fs}
}

// at returns how many steps were acknowledged before the power went after n
// events, and what is promised.
func (rec *recording) at(n int) (acked int, p promise) {
	acked = sort.Search(len(rec.done), func(k int) bool { return rec.done[k] > n })
	p = rec.promises[acked]
	if acked < len(rec.begun) && rec.begun[acked] <= n {
		p = p.started(rec.steps[acked])
	}
	return acked, p
}

// A recording is worth so many cuts. The next one begins with what one of them
// left, so that its cuts may hit the recovery, and after some of those anew.
const (
	cutsPerRecording = 25
	recordingsInRow  = 3
)

// TestPowerCut cuts the power at any point and looks what is left.
func TestPowerCut(t *testing.T) {
	seed, cuts := seedOf(t), envInt(t, "N", 100)
	each(t, func(t *testing.T, fs string) {
		t.Parallel()
		r := rand.New(rand.NewPCG(seed, 3))
		dir := memory(t, 4<<30)
		h := &powerHistory{fs: fs, image: filepath.Join(dir, "base"), left: filepath.Join(dir, "left")}
		for k := 0; k*cutsPerRecording < cuts && !t.Failed(); k++ {
			if k%recordingsInRow == 0 {
				h.Retain = uint64(r.IntN(3) * r.IntN(10))
				h.Holds = content{}
				h.promise = settled(h.start())
				makeImage(t, fs, h.image, imageSizes[fs])
			}
			h.Seed, h.Steps = r.Uint64(), 100
			t.Run(fmt.Sprintf("recording %d", k), func(t *testing.T) { h.run(t, min(cuts-k*cutsPerRecording, cutsPerRecording)) })
		}
	})
}

// powerHistory is a file system that loses its power again and again.
type powerHistory struct {
	savings
	fs      string
	image   string
	left    string // what one of the cuts left, for the next recording
	promise promise
}

// run makes a recording, and looks at some cuts of it.
func (h *powerHistory) run(t *testing.T, cuts int) {
	r := rand.New(rand.NewPCG(h.Seed, 4))
	rec := record(t, h.fs, h.image, h.savings, h.promise)
	disk, image := rec.disk(t), h.image+".cut"
	goOn := r.IntN(cuts)
	for k, n := range cutPoints(r, rec.events, rec.done, cuts) {
		flushed := lastFlush(rec.events, n)
		sum, err := disk.cut(image, flushed, n, keepSome(r))
		must(t, err)
		if k == goOn {
			must(t, copyFile(h.left, image))
		}
		acked, p := rec.at(n)
		found, err := checkImage(t, h.fs, image, p, h.Retain)
		results.add("PowerCut "+h.fs, sum, acked, found)
		if err != nil {
			t.Fatalf("seed %d: power cut after %d of %d events, flushed %d, %d steps acknowledged, under way %+v: %v",
				h.Seed, n, len(rec.events), flushed, acked, rec.steps[min(acked, len(rec.steps)-1)], err)
		}
		if k == goOn {
			h.promise, h.Holds = p, contentOf(found.m)
		}
	}
	must(t, os.Rename(h.left, h.image))
	t.Logf("%d steps, %d writes and flushes", len(rec.steps), len(rec.events))
}

// TestLyingDisk: when the disk forgets what was flushed since a Save was begun,
// the check says so. A harness that cannot fail proves nothing.
func TestLyingDisk(t *testing.T) {
	seed := seedOf(t)
	each(t, func(t *testing.T, fs string) {
		t.Parallel()
		base := filepath.Join(memory(t, 4<<30), "base")
		makeImage(t, fs, base, imageSizes[fs])
		s := savings{Seed: seed, Steps: 60}
		rec := record(t, fs, base, s, settled(s.start()))
		disk, image := rec.disk(t), base+".cut"
		lost := 0
		for k, next := range rec.steps {
			if len(next.op.Terms) == 0 || k%5 != 0 {
				continue
			}
			n := rec.done[k]
			sum, err := disk.cut(image, lastFlush(rec.events, rec.begun[k]), n, keepNone)
			must(t, err)
			acked, p := rec.at(n)
			found, err := checkImage(t, fs, image, p, rec.Retain)
			results.add("LyingDisk "+fs, sum, acked, found)
			if !found.lost {
				t.Errorf("step %d: entries of a Save are gone, and the check says: %v", k, err)
			}
			lost++
		}
		if lost == 0 {
			t.Error("no Save was looked at")
		}
	})
}
