package diskbench

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	told := time.Duration(0)
	r, err := Run(t.Context(), dir, 50*time.Millisecond, func(d time.Duration) { told = d })
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Series) != 1+len(shapes) || r.Series[0].Name != Reference || r.Series[0].Ratio != 1 || told == 0 || r.Verdict == "" || r.Reason == "" {
		t.Errorf("%+v", r)
	}
	for _, s := range r.Series {
		if s.Count == 0 || s.Count != r.Series[0].Count || s.P50 <= 0 || s.P50 > s.P99 || s.P99 > s.P999 || s.P999 > s.Max {
			t.Errorf("%+v", s)
		}
	}
	expectEmpty(t, dir)
	checkSVG(t, r)
}

func expectEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func checkSVG(t *testing.T, r *Result) {
	t.Helper()
	svg := r.SVG()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"<svg", Reference, shapes[2].name, "p99.9", string(r.Verdict)} {
		if !strings.Contains(svg, part) {
			t.Errorf("%q is missing in the SVG", part)
		}
	}
}

// TestCompacts: a run that writes more than a file takes goes on in the next one, and
// gives the first one back.
func TestCompacts(t *testing.T) {
	b, err := newBench(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b.compacted = compactEach
	for range 2 {
		if err := b.round(); err != nil {
			t.Fatal(err)
		}
	}
	if first, err := b.wal.FirstIndex(); first != 82 || err != nil || b.last != 162 {
		t.Errorf("the log begins at %d and ends at %d, %v", first, b.last, err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

func TestStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	if _, err := Run(ctx, dir, time.Hour, func(time.Duration) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	expectEmpty(t, dir)
	if _, err := Run(t.Context(), dir+"/none", time.Second, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	full := System{Free: Space - 1}
	if err := full.hasRoom(dir); !errors.Is(err, ErrSpace) {
		t.Errorf("no space: %v", err)
	}
}

func TestSeries(t *testing.T) {
	var samples []time.Duration
	for k := 2000; k > 0; k-- {
		samples = append(samples, time.Duration(k)*time.Microsecond)
	}
	s := newSeries("s", samples)
	if s.Count != 2000 || s.P50 != 1000 || s.P99 != 1980 || s.P999 != 1998 || s.Max != 2000 || math.Abs(s.PerSecond-999.5) > 0.1 {
		t.Errorf("%+v", s)
	}
	sum := 0
	for k, b := range s.Buckets {
		sum += b.Count
		if b.From >= b.To || k > 0 && b.From != s.Buckets[k-1].To {
			t.Errorf("bucket %d: %+v", k, b)
		}
	}
	if sum != s.Count || s.Buckets[0].From > 1 || s.Buckets[len(s.Buckets)-1].To <= 2000 {
		t.Errorf("%d in buckets: %+v", sum, s.Buckets)
	}
	if one := newSeries("one", []time.Duration{0}); one.Count != 1 || len(one.Buckets) != 1 || one.Max != 0 {
		t.Errorf("%+v", one)
	}
}

func TestVerdict(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		system     System
		usual      time.Duration
		worst      time.Duration // of 2 in 100
		count      int
		want       Verdict
		suspicious bool
		says       string
	}{
		"good":       {System{Name: "ext4"}, ms, 9 * ms, 2000, Good, false, "9.0 ms"},
		"slow":       {System{Name: "ext4"}, ms, 30 * ms, 2000, Slow, false, "give elections at least 300 ms"},
		"bad":        {System{Name: "ext4"}, ms, 300 * ms, 2000, Bad, false, "heartbeats"},
		"too few":    {System{Name: "ext4"}, ms, 2 * ms, 100, Good, false, "of 100 syncs only"},
		"suspicious": {System{Name: "ext4"}, 15 * time.Microsecond, ms, 2000, Unknown, true, "acknowledges what it can lose"},
		"in memory":  {System{Name: "tmpfs", Why: inMemory}, time.Microsecond, ms, 2000, Unknown, false, "tmpfs: it is in memory"},
		"network":    {System{Name: "nfs", Why: overNetwork}, ms, 300 * ms, 2000, Unknown, false, "another machine"},
	} {
		t.Run(name, func(t *testing.T) {
			var samples []time.Duration
			for k := range test.count {
				if k%50 == 0 {
					samples = append(samples, test.worst)
				} else {
					samples = append(samples, test.usual)
				}
			}
			r := newResult("dir", test.system, time.Second, [][]time.Duration{samples, samples, samples, samples})
			if r.Verdict != test.want || r.Suspicious != test.suspicious || !strings.Contains(r.Reason, test.says) {
				t.Errorf("%s, %v: %s", r.Verdict, r.Suspicious, r.Reason)
			}
			checkSVG(t, r)
		})
	}
}
