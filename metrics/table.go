package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// table returns all metrics, in the order of docs/metrics.md.
func (c *Collector) table() []metric {
	type stats = figures
	return []metric{
		// Writing.
		c.histogram("save_duration_seconds", "Time of each Save that succeeded, in seconds, waits included.",
			func(s *stats) mmapwal.Histogram { return s.SaveTime }),
		c.histogram("save_wait_seconds", "Time that each Save waited for others, in seconds.",
			func(s *stats) mmapwal.Histogram { return s.WaitTime }),
		c.histogram("sync_duration_seconds", "Time of each sync of entries to the disk, in seconds.",
			func(s *stats) mmapwal.Histogram { return s.SyncTime }),
		c.histogram("sync_entries", "Entries that were made durable by one sync.",
			func(s *stats) mmapwal.Histogram { return s.SyncEntries }),
		c.histogram("sync_saves", "Saves with entries that were made durable by one sync.",
			func(s *stats) mmapwal.Histogram { return s.SyncSaves }),
		c.count("slow_syncs_total", "Syncs of entries that took Options.SlowSync or longer.",
			func(s *stats) uint64 { return s.SlowSyncs }),
		c.split("save_errors_total", "Saves that failed, by reason: no_space (nothing has changed) or other.", "reason",
			prometheus.CounterValue, saveErrors),
		c.count("appended_entries_total", "Entries that were appended.",
			func(s *stats) uint64 { return s.AppendedEntries }),
		c.count("appended_bytes_total", "Bytes of data of the entries that were appended.",
			func(s *stats) uint64 { return s.AppendedBytes }),
		c.gauge("unsynced_entries", "Entries that were appended and that a power cut may take.",
			func(s *stats) float64 { return float64(s.UnsyncedEntries) }),
		c.gauge("unsynced_bytes", "Bytes of the records of the entries that a power cut may take.",
			func(s *stats) float64 { return float64(s.UnsyncedBytes) }),
		c.gauge("pending_saves", "Calls of SaveAsync whose done function has not returned.",
			func(s *stats) float64 { return float64(s.PendingSaves) }),
		c.gauge("poisoned", "1 after a failed sync or write: nothing is written until the log is opened again; else 0. Of a Sum, how many are so.",
			func(s *stats) float64 { return float64(s.poisoned) }),

		// Reading.
		c.count("read_entries_total", "Entries that were read.",
			func(s *stats) uint64 { return s.ReadEntries }),
		c.count("read_bytes_total", "Bytes of data of the entries that were read.",
			func(s *stats) uint64 { return s.ReadBytes }),
		c.count("corrupt_reads_total", "Calls that failed because what they read was damaged.",
			func(s *stats) uint64 { return s.CorruptReads }),
		c.count("faults_total", "Calls that failed because the kernel could not back a page of a mapped file.",
			func(s *stats) uint64 { return s.Faults }),

		// The log and its files.
		c.gauge("logs", "Logs that these figures are of: 1, or how many a Sum adds up.",
			func(s *stats) float64 { return float64(s.logs) }),
		c.maybe("first_index", "Index of the first entry.", ofOne(func(s *stats) uint64 { return s.FirstIndex })),
		c.maybe("last_index", "Index of the last entry.", ofOne(func(s *stats) uint64 { return s.LastIndex })),
		c.maybe("snapshot_index", "Index of the newest snapshot.", ofOne(func(s *stats) uint64 { return s.SnapshotIndex })),
		c.maybe("last_snapshot_timestamp_seconds", "Unix time in seconds of the newest snapshot; absent if it is unknown.",
			func(s *stats) (float64, bool) { return seconds(s.LastSnapshot) }),
		c.maybe("last_backup_timestamp_seconds", "Unix time in seconds of the newest backup; 0 if there is none, absent if nobody said.",
			c.backup),
		c.count("rotations_total", "Entry files that were full and are followed by another.",
			func(s *stats) uint64 { return s.Rotations }),
		c.count("compactions_total", "How often entries were dropped from the front of the log.",
			func(s *stats) uint64 { return s.Compactions }),
		c.count("removed_files_total", "Dead files that were removed.",
			func(s *stats) uint64 { return s.FilesRemoved }),
		c.split("files", "Entry files, by state: live (with entries), spare (kept for use again), prepared (ready to be the next).", "state",
			prometheus.GaugeValue, files),
		c.split("files_kept_back",
			"Files that the snapshot covers and that take space, by reason: reader (in use by a read), retain_entries, failed_removal.", "reason",
			prometheus.GaugeValue, keptBack),
		c.maybe("oldest_file_timestamp_seconds", "Unix time in seconds when the first entry file was begun; absent if it is unknown.",
			func(s *stats) (float64, bool) { return seconds(s.OldestFile) }),
		c.gauge("healed_files", "Sealed files whose damaged slots were rebuilt from the records.",
			func(s *stats) float64 { return float64(s.HealedFiles) }),
		c.gauge("encrypted", "1 if the log is encrypted, else 0.",
			func(s *stats) float64 { return yes(s.Encrypted) }),
		c.gauge("plain_files", "Files of an encrypted log that are from before that, and are not encrypted.",
			func(s *stats) float64 { return float64(s.PlainFiles) }),
		c.maybe("filesystem_free_bytes", "Free bytes of the file system that the log is on; absent if that is unknown.",
			func(s *stats) (float64, bool) { return float64(s.FreeBytes), s.TotalBytes > 0 }),
		c.maybe("filesystem_size_bytes", "Bytes of the file system that the log is on; absent if that is unknown.",
			func(s *stats) (float64, bool) { return float64(s.TotalBytes), s.TotalBytes > 0 }),

		// What the last Open found.
		c.maybe("open_timestamp_seconds", "Unix time in seconds when the log was opened.",
			func(s *stats) (float64, bool) { return seconds(s.Opened) }),
		c.gauge("recovery_clean", "1 if the run before this one ended with Close, 0 if the log had to be recovered.",
			func(s *stats) float64 { return yes(s.Recovery.Clean) }),
		c.gauge("recovery_duration_seconds", "Time that Open took, in seconds.",
			func(s *stats) float64 { return s.Recovery.Duration.Seconds() }),
		c.gauge("recovery_scanned_files", "Entry files that Open read.",
			func(s *stats) float64 { return float64(s.Recovery.FilesScanned) }),
		c.gauge("recovery_scanned_entries", "Entries that Open found in the files it read.",
			func(s *stats) float64 { return float64(s.Recovery.Entries) }),
		c.gauge("recovery_torn_bytes", "Bytes of a torn tail that Open dropped; they were never promised.",
			func(s *stats) float64 { return float64(s.Recovery.TornBytes) }),
		c.gauge("recovery_healed_pages", "Damaged pages of wal.meta that Open wrote anew.",
			func(s *stats) float64 { return float64(s.Recovery.HealedPages) }),
		c.gauge("recovery_set_aside_files", "Damaged files that Open set aside under KeepValidPrefix.",
			func(s *stats) float64 { return float64(len(s.Recovery.SetAside)) }),
	}
}

// ofOne returns what only a single log has: a Sum leaves it out.
func ofOne(value func(*figures) uint64) func(*figures) (float64, bool) {
	return func(s *figures) (float64, bool) { return float64(value(s)), !s.sum }
}

func saveErrors(s *figures) parts {
	return parts{"no_space": float64(s.NoSpace), "other": float64(s.SaveErrors - s.NoSpace)}
}

func files(s *figures) parts {
	return parts{"live": float64(s.Files), "spare": float64(s.SpareFiles), "prepared": float64(s.PreparedFiles)}
}

func keptBack(s *figures) parts {
	return parts{
		"reader":         float64(s.PinnedFiles),
		"retain_entries": float64(s.RetainedFiles),
		"failed_removal": float64(s.failedRemovals),
	}
}

// backup returns the time of the newest backup; unknown if nobody can say.
func (c *Collector) backup(*figures) (float64, bool) {
	if c.lastBackup == nil {
		return 0, false
	}
	at, _ := seconds(c.lastBackup())
	return max(at, 0), true
}
