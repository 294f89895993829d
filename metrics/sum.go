package metrics

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// figures are what a Collector shows: those of a log, or of many added up.
type figures struct {
	mmapwal.Stats
	sum            bool // of a Sum
	logs, poisoned int
	failedRemovals int
}

func figuresOf(log Log) *figures {
	f := &figures{Stats: log.Stats(), logs: 1}
	f.failedRemovals = len(f.FailedRemovals)
	if f.Poisoned != nil {
		f.poisoned = 1
	}
	return f
}

// Sum is a prometheus.Collector for many logs that shows as many series as for one:
// for a process with hundreds of Raft groups. Counters, histograms, files and bytes are
// added up. Of times and of the free space the worst is shown: the oldest snapshot, the
// oldest file, the fullest file system. A yes or no is yes if it is so for all logs. What only a
// single log has is left out: its first and last index and that of its snapshot.
//
// Its methods may be called concurrently.
type Sum struct {
	collector *Collector

	mu   sync.Mutex
	logs map[Log]struct{}
	past figures // counters of the logs that were removed
}

var _ prometheus.Collector = (*Sum)(nil)

// NewSum returns a Sum of no logs yet. Register it once.
func NewSum(options ...Option) *Sum {
	s := &Sum{logs: make(map[Log]struct{}), past: figures{sum: true}}
	s.collector = newCollector(s.figures, options)
	return s
}

// Add has log counted, once however often it is added. Log has to be comparable, as a
// pointer is.
func (s *Sum) Add(log Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs[log] = struct{}{}
}

// Remove takes log out, as when it is closed for good. What it has counted stays in the
// counters, so that they do not fall.
func (s *Sum) Remove(log Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.logs[log]; is {
		delete(s.logs, log)
		last := log.Stats()
		addCounters(&s.past.Stats, &last)
	}
}

// Describe implements prometheus.Collector.
func (s *Sum) Describe(descs chan<- *prometheus.Desc) { s.collector.Describe(descs) }

// Collect implements prometheus.Collector.
func (s *Sum) Collect(to chan<- prometheus.Metric) { s.collector.Collect(to) }

// figures adds up what all logs say.
func (s *Sum) figures() *figures {
	s.mu.Lock()
	logs, total := slices.Collect(maps.Keys(s.logs)), s.past
	s.mu.Unlock()
	for _, log := range logs {
		total.add(figuresOf(log))
	}
	return &total
}

// add adds the figures of one more log.
func (f *figures) add(other *figures) {
	addCounters(&f.Stats, &other.Stats)
	addGauges(&f.Stats, &other.Stats, f.logs == 0)
	f.logs += other.logs
	f.poisoned += other.poisoned
	f.failedRemovals += other.failedRemovals
}

// addCounters adds what only rises.
func addCounters(to, s *mmapwal.Stats) {
	for _, h := range [][2]*mmapwal.Histogram{
		{&to.SaveTime, &s.SaveTime}, {&to.WaitTime, &s.WaitTime}, {&to.SyncTime, &s.SyncTime},
		{&to.SyncEntries, &s.SyncEntries}, {&to.SyncSaves, &s.SyncSaves},
	} {
		addHistogram(h[0], h[1])
	}
	for _, n := range [][2]*uint64{
		{&to.SlowSyncs, &s.SlowSyncs}, {&to.SaveErrors, &s.SaveErrors}, {&to.NoSpace, &s.NoSpace},
		{&to.AppendedEntries, &s.AppendedEntries}, {&to.AppendedBytes, &s.AppendedBytes},
		{&to.ReadEntries, &s.ReadEntries}, {&to.ReadBytes, &s.ReadBytes},
		{&to.CorruptReads, &s.CorruptReads}, {&to.Faults, &s.Faults},
		{&to.Rotations, &s.Rotations}, {&to.Compactions, &s.Compactions}, {&to.FilesRemoved, &s.FilesRemoved},
	} {
		*n[0] += *n[1]
	}
}

// addHistogram adds h to to; all logs have the same buckets.
func addHistogram(to, h *mmapwal.Histogram) {
	counts := make([]uint64, len(h.Counts)) // those of to may be shared
	for k := range counts {
		counts[k] = h.Counts[k]
		if k < len(to.Counts) {
			counts[k] += to.Counts[k]
		}
	}
	*to = mmapwal.Histogram{Bounds: h.Bounds, Counts: counts, Sum: to.Sum + h.Sum}
}

// addGauges adds what is so now, or takes the worse of the two. The first log has
// nothing to be compared with.
func addGauges(to, s *mmapwal.Stats, first bool) {
	to.UnsyncedEntries += s.UnsyncedEntries
	to.UnsyncedBytes += s.UnsyncedBytes
	for _, n := range [][2]*int{
		{&to.PendingSaves, &s.PendingSaves}, {&to.Files, &s.Files}, {&to.SpareFiles, &s.SpareFiles},
		{&to.PreparedFiles, &s.PreparedFiles}, {&to.RetainedFiles, &s.RetainedFiles}, {&to.PinnedFiles, &s.PinnedFiles},
		{&to.HealedFiles, &s.HealedFiles}, {&to.PlainFiles, &s.PlainFiles},
		{&to.Recovery.FilesScanned, &s.Recovery.FilesScanned}, {&to.Recovery.HealedPages, &s.Recovery.HealedPages},
	} {
		*n[0] += *n[1]
	}
	to.Recovery.Entries += s.Recovery.Entries
	to.Recovery.TornBytes += s.Recovery.TornBytes
	to.Recovery.Duration += s.Recovery.Duration
	to.Recovery.SetAside = slices.Concat(to.Recovery.SetAside, s.Recovery.SetAside)
	to.Encrypted = s.Encrypted && (first || to.Encrypted)
	to.Recovery.Clean = s.Recovery.Clean && (first || to.Recovery.Clean)
	to.Opened = later(to.Opened, s.Opened)
	to.LastSnapshot, to.OldestFile = earlier(to.LastSnapshot, s.LastSnapshot), earlier(to.OldestFile, s.OldestFile)
	if s.TotalBytes > 0 && (to.TotalBytes == 0 || s.FreeBytes < to.FreeBytes) {
		to.FreeBytes, to.TotalBytes = s.FreeBytes, s.TotalBytes
	}
}

// earlier returns the earlier of two times; zero ones are unknown.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
