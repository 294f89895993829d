package rulestest

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// rules returns the alert rules by name.
func rules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("../../../docs/alerts/raftwal.yml", false, model.LegacyValidation,
		parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	byName := make(map[string]rulefmt.Rule)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if _, twice := byName[r.Alert]; twice || r.Alert == "" {
				t.Errorf("the alert %q is there twice, or has no name", r.Alert)
			}
			byName[r.Alert] = r
		}
	}
	return byName
}

// firing returns the alerts that fire at the end of the history: those whose
// expression has held for as long as they ask.
func firing(t *testing.T, rules map[string]rulefmt.Rule, h *history) []string {
	t.Helper()
	var names []string
	for name, r := range rules {
		holds := true
		for minute := minutes - int(time.Duration(r.For)/time.Minute); minute <= minutes && holds; minute++ {
			holds = len(h.query(t, r.Expr, at(minute))) > 0
		}
		if holds {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// TestAlerts: none fires for a healthy log; each does for what it is there for.
func TestAlerts(t *testing.T) {
	all := rules(t)
	type change = func(s *mmapwal.Stats, minute int, backup *time.Time)
	tests := map[string]struct {
		want   []string
		change change
	}{
		"healthy":  {nil, func(*mmapwal.Stats, int, *time.Time) {}},
		"poisoned": {[]string{"RaftWALPoisoned"}, func(s *mmapwal.Stats, minute int, _ *time.Time) { s.Poisoned = mmapwal.ErrPoisoned }},
		"damage": {[]string{"RaftWALCorruptReads"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.CorruptReads = uint64(max(0, minute-minutes+10))
		}},
		"damage, yesterday": {nil, func(s *mmapwal.Stats, minute int, _ *time.Time) { s.CorruptReads = 5 }},
		"faults": {[]string{"RaftWALFaults"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.Faults = uint64(max(0, minute-minutes+10))
		}},
		"set aside": {[]string{"RaftWALSetAside"}, func(s *mmapwal.Stats, _ int, _ *time.Time) { s.Recovery.SetAside = []string{"x"} }},
		"full disk": {[]string{"RaftWALDiskNearlyFull", "RaftWALNoSpace"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.FreeBytes = 0
			s.NoSpace = uint64(minute)
		}},
		"the disk is nearly full": {[]string{"RaftWALDiskNearlyFull"}, func(s *mmapwal.Stats, _ int, _ *time.Time) { s.FreeBytes = 1<<30 - 1 }},
		"the disk fills up": {[]string{"RaftWALDiskFillsUp"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.FreeBytes = 40<<30 - int64(minute)*(40<<20) // full after 17 hours
		}},
		"slow syncs": {[]string{"RaftWALSlowSyncs"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.SyncTime = took(uint64(minute)*1000, uint64(minute)*15)
		}},
		"a few slow syncs": {nil, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.SyncTime = took(uint64(minute)*1000, uint64(minute)*5)
		}},
		"unsynced bytes grow": {[]string{"RaftWALUnsyncedBytesGrow"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.UnsyncedBytes = uint64(minute) << 20
		}},
		"unsynced bytes, many": {nil, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.UnsyncedBytes = uint64(500-minute/60) << 20
		}},
		"failed removals": {[]string{"RaftWALFailedRemovals"}, func(s *mmapwal.Stats, _ int, _ *time.Time) {
			s.FailedRemovals = map[string]error{"00001.wal": os.ErrPermission}
		}},
		"a failed removal, just now": {nil, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			if minute > minutes-30 {
				s.FailedRemovals = map[string]error{"00001.wal": os.ErrPermission}
			}
		}},
		"a slow reader": {[]string{"RaftWALFilesKeptByReader"}, func(s *mmapwal.Stats, minute int, _ *time.Time) { s.PinnedFiles = 1 }},
		"no backup for too long": {[]string{"RaftWALBackupTooOld"}, func(_ *mmapwal.Stats, _ int, backup *time.Time) {
			*backup = at(minutes).Add(-27 * time.Hour)
		}},
		"no backup ever": {[]string{"RaftWALBackupTooOld"}, func(_ *mmapwal.Stats, _ int, backup *time.Time) { *backup = time.Time{} }},
		"a backup from the future": {[]string{"RaftWALBackupFromFuture"}, func(_ *mmapwal.Stats, _ int, backup *time.Time) {
			*backup = at(minutes).Add(time.Hour)
		}},
		"clocks that differ": {nil, func(_ *mmapwal.Stats, minute int, backup *time.Time) { *backup = at(minute).Add(4 * time.Minute) }},
		"unclean restarts": {[]string{"RaftWALUncleanRestarts"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.Opened, s.Recovery.Clean = at(minute-minute%60), false
		}},
		"clean restarts": {nil, func(s *mmapwal.Stats, minute int, _ *time.Time) { s.Opened = at(minute - minute%60) }},
		"torn tails": {[]string{"RaftWALTornTails"}, func(s *mmapwal.Stats, minute int, _ *time.Time) {
			s.Opened, s.Recovery.Clean, s.Recovery.TornBytes = at(minute-minute%180), false, 100
		}},
		"one torn tail": {nil, func(s *mmapwal.Stats, _ int, _ *time.Time) { s.Recovery.Clean, s.Recovery.TornBytes = false, 100 }},
		"healed slots":  {[]string{"RaftWALHealedSlots"}, func(s *mmapwal.Stats, _ int, _ *time.Time) { s.HealedFiles = 1 }},
		"healed pages":  {[]string{"RaftWALHealedSlots"}, func(s *mmapwal.Stats, _ int, _ *time.Time) { s.Recovery.HealedPages = 1 }},
	}
	untested := maps.Clone(all)
	for name, test := range tests {
		for kind, collector := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				if got := firing(t, all, record(t, collector, test.change)); !slices.Equal(got, test.want) {
					t.Errorf("%v fire, want %v", got, test.want)
				}
			})
		}
		for _, alert := range test.want {
			delete(untested, alert)
		}
	}
	if len(untested) > 0 {
		t.Errorf("no test lets these fire: %v", slices.Sorted(maps.Keys(untested)))
	}
}

// TestAlertsSayWhatToDo: each has what somebody who is woken by it needs.
func TestAlertsSayWhatToDo(t *testing.T) {
	for name, r := range rules(t) {
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", name, s)
		}
		if len(r.Annotations["summary"]) < 20 || len(r.Annotations["description"]) < 100 {
			t.Errorf("%s: summary or description is too short", name)
		}
	}
}
