package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/spf13/cobra"
)

func newInfo() *cobra.Command {
	var f lookFlags
	cmd := &cobra.Command{
		Use:   "info DIR",
		Short: "Show what a log holds: ids, hard state, snapshot, entries, and every file",
		Long: `info shows ids, hard state, snapshot, the range of entries, and every file of the
log in DIR with what its bytes are taken by. It changes nothing and takes no lock:
it works beside a live owner, on a log that was not closed, and on a damaged one,
of which it shows what it can. It reads no more than it must; for a check of every
byte see verify.

An entry file is open while it takes entries; then it is full, and soon sealed. The
next one is made ahead, and empty. Spare files hold nothing that counts: they are
kept to be used again. A torn one lies behind the end that a power cut left.

It exits with 0 if it met no damage, 1 if it did, 3 if it could not look. Without --key-file it shows of an encrypted log
what stands there in clear; only the members in the snapshot are missing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.prepare(); err != nil {
				return err
			}
			l, err := f.look(cmd, args[0], false)
			if err != nil {
				return failed(err)
			}
			if f.json {
				err = printJSON(cmd.OutOrStdout(), l)
			} else {
				err = printInfo(cmd.OutOrStdout(), l)
			}
			if err == nil && l.Damaged() {
				return found(exitFailed, fmt.Errorf("%s is damaged; `mmapwal verify` says all that is wrong", args[0]))
			}
			return failed(err)
		},
	}
	f.add(cmd, "print one JSON object")
	return cmd
}

func printInfo(out io.Writer, l *inspect.Log) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) // Flush tells
	}
	row("log", "%s", shown(l.Dir))
	infoMeta(row, l)
	row("entries", "%s", entriesText(l))
	infoBytes(row, l)
	if err := w.Flush(); err != nil {
		return err
	}
	if err := infoFiles(out, l); err != nil {
		return err
	}
	return infoDamage(out, l)
}

func infoMeta(row func(name, format string, args ...any), l *inspect.Log) {
	m := l.Meta
	if m == nil {
		row("state", "unknown: wal.meta cannot be read")
		return
	}
	row("state", "%s", stateText(m))
	row("encrypted", "%s", encryptedText(l))
	row("log ID", "%s", m.LogID)
	row("raft ID, group ID", "%d, %d", m.RaftID, m.GroupID)
	if h := m.HardState; h != nil {
		row("hard state", "term %d, vote %d, commit %d", h.Term, h.Vote, h.Commit)
	} else {
		row("hard state", "none")
	}
	row("snapshot", "%s", snapshotText(&m.Snapshot))
	row("checkpoint", "%d", m.Checkpoint)
	row("sync policy", "%s", m.SyncPolicy)
	if m.Durable.File != 0 {
		row("durable", "up to offset %d of file %d", m.Durable.Offset, m.Durable.File)
	}
	var states []string
	for _, p := range m.Pages {
		states = append(states, p.State)
	}
	row("wal.meta", "pages 0 to %d: %s", len(states)-1, strings.Join(states, ", "))
	if m.Cleared > m.Compacted.Index+1 {
		row("cleared", "data of normal entries below %d, but for those stored anew", m.Cleared)
	}
}

func stateText(m *inspect.Meta) string {
	if m.Clean {
		return "closed cleanly"
	}
	return "not closed: in use, or its owner died; the next Open recovers it"
}

func encryptedText(l *inspect.Log) string {
	if !l.Meta.Encrypted {
		return "no"
	}
	plain := 0
	for _, f := range l.Files {
		if f.Role == inspect.RoleLive && !f.Encrypted {
			plain++
		}
	}
	if plain > 0 {
		return fmt.Sprintf("yes, from file %d on; %d older files are not", l.Meta.EncryptedFrom, plain)
	}
	return "yes"
}

func snapshotText(s *inspect.Snapshot) string {
	if s.Index == 0 && len(s.Voters)+len(s.Learners) == 0 {
		return "none"
	}
	where := "in wal.meta"
	if s.File != "" {
		where = "in " + s.File
	}
	size := bytesText(s.Bytes)
	if s.Encrypted && s.File == "" && len(s.Voters) == 0 {
		size += " encrypted"
	}
	text := fmt.Sprintf("index %d, term %d, %s %s", s.Index, s.Term, size, where)
	if len(s.Voters) > 0 {
		text += fmt.Sprintf(", voters %v", s.Voters)
	}
	if len(s.Learners) > 0 {
		text += fmt.Sprintf(", learners %v", s.Learners)
	}
	return text
}

func entriesText(l *inspect.Log) string {
	if l.Last < l.First || l.Last == 0 {
		return fmt.Sprintf("none; the next one is %d", l.Last+1)
	}
	return fmt.Sprintf("%d to %d (%d)", l.First, l.Last, l.Last-l.First+1)
}

// infoBytes sums up what the log takes.
func infoBytes(row func(name, format string, args ...any), l *inspect.Log) {
	var reserved, live, wasted, dead, spare int64
	for _, f := range l.Files {
		reserved += max(f.Reserved, 0)
		if f.Role == inspect.RoleDead {
			dead += max(f.Reserved, 0)
			continue
		}
		live += f.Bytes[inspect.Live]
		wasted += f.Bytes.Wasted()
	}
	for _, o := range l.Others {
		reserved += max(o.Reserved, 0)
		if o.Role == inspect.RoleSpare {
			spare += max(o.Reserved, 0)
		}
	}
	row("on disk", "%s, of which records that count %s", bytesText(reserved), bytesText(live))
	row("", "wasted %s, in dead files %s, in spare ones %s", bytesText(wasted), bytesText(dead), bytesText(spare))
}

// infoColumns are the kinds of bytes that a file is shown with, if any file has some.
var infoColumns = []inspect.Kind{inspect.Live, inspect.Compacted, inspect.Superseded, inspect.Cleared, inspect.Torn}

func infoFiles(out io.Writer, l *inspect.Log) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) } // Flush tells
	var kinds []inspect.Kind
	heads := []string{"\nFILE", "IS", "ENTRIES", "SIZE", "RESERVED"}
	for _, k := range infoColumns {
		if k == inspect.Live || slices.ContainsFunc(l.Files, func(f *inspect.File) bool { return f.Bytes[k] > 0 }) {
			kinds, heads = append(kinds, k), append(heads, strings.ToUpper(string(k)))
		}
	}
	row(heads...)
	for _, f := range l.Files {
		cells := []string{shown(f.Name), fileText(f), rangeText(f.First, f.Last), bytesText(f.Size), bytesText(f.Reserved)}
		for _, k := range kinds {
			cells = append(cells, bytesText(f.Bytes[k]))
		}
		row(cells...)
	}
	for _, o := range l.Others {
		row(shown(o.Name), otherText(o.Role), "-", bytesText(o.Size), bytesText(o.Reserved))
	}
	return w.Flush()
}

func fileText(f *inspect.File) string {
	text := stateOf(f)
	if f.Role == inspect.RoleDead {
		return text
	}
	if f.Encrypted {
		text += ", encrypted"
	}
	if f.Bytes[inspect.Damaged] > 0 || f.IndexDamaged {
		text += ", damaged"
	}
	return text
}

func stateOf(f *inspect.File) string {
	switch {
	case f.Role == inspect.RoleNext:
		return "next, empty"
	case f.Role != inspect.RoleLive:
		return string(f.Role)
	case f.Sealed:
		return "sealed"
	case f.Ended:
		return "full, not sealed yet"
	}
	return "open"
}

func otherText(r inspect.Role) string {
	if r == inspect.RoleMeta {
		return "ids, hard state, snapshot"
	}
	return string(r)
}

// infoDamage lists the damage that was met on the way.
func infoDamage(out io.Writer, l *inspect.Log) error {
	if !l.Damaged() {
		return nil
	}
	if _, err := fmt.Fprintln(out, "\nDAMAGE"); err != nil {
		return err
	}
	for _, p := range l.Problems {
		if p.Severity != inspect.Damage {
			continue
		}
		if _, err := fmt.Fprintf(out, "%s: %s\n", placeText(p), p.What); err != nil {
			return err
		}
	}
	return nil
}
