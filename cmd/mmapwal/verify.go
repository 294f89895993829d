package main

import (
	"fmt"
	"io"

	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/spf13/cobra"
)

func newVerify() *cobra.Command {
	var f lookFlags
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Read every byte of a log and report everything that is wrong with it",
		Long: `verify reads every byte of the log in DIR and checks all there is to check: the
pages of wal.meta, the header pages, seals and slots of the files, the chain they
form, every record, those that do not count any more among them, the snapshot, the
names. It reports every problem, not only the first, with file, offset, the entries
affected, and what would heal it. With --key-file it checks the tags of an encrypted
log as well. It changes nothing and takes no lock: it works beside a live owner.

A log is degraded if nothing is missing, but one of two copies of something is: the next
damage there would be one. A log that was not closed, or that ends in a torn write, is
not damaged: that is a note, as is what a crash may leave behind.

It exits with 0 if all is well, 1 if there is damage, 3 if it could not look (no such
directory, permission, key: that says nothing of the log), 5 if the log is degraded.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.prepare(); err != nil {
				return err
			}
			l, err := f.look(cmd, args[0], true)
			if err != nil {
				return failed(err)
			}
			if f.json {
				err = printJSON(cmd.OutOrStdout(), reportOf(l))
			} else {
				err = printVerify(cmd.OutOrStdout(), l)
			}
			if err != nil {
				return failed(err)
			}
			return verdictOf(args[0], l)
		},
	}
	f.add(cmd, "print one JSON object")
	return cmd
}

// verdictOf returns what verify ends with.
func verdictOf(dir string, l *inspect.Log) error {
	if n := l.Count(inspect.Damage); n > 0 {
		return found(exitFailed, fmt.Errorf("%s: damage in %s", dir, count(n, "place")))
	}
	if n := l.Count(inspect.Degraded); n > 0 {
		return found(exitDegraded, fmt.Errorf("%s: degraded in %s", dir, count(n, "place")))
	}
	return nil
}

// verifyReport is what verify says to programs.
type verifyReport struct {
	Dir      string            `json:"dir"`
	OK       bool              `json:"ok"`    // no damage
	Clean    bool              `json:"clean"` // closed by its last owner
	First    uint64            `json:"first"`
	Last     uint64            `json:"last"`
	Files    int               `json:"files"`   // entry files
	Records  int               `json:"records"` // whole ones
	Bytes    int64             `json:"bytes"`   // of them
	Damage   int               `json:"damage"`
	Degraded int               `json:"degraded"`
	Notes    int               `json:"notes"`
	Problems []inspect.Problem `json:"problems"`
	Next     string            `json:"next_step,omitempty"`
}

func reportOf(l *inspect.Log) verifyReport {
	r := verifyReport{
		Dir: l.Dir, OK: !l.Damaged(), Clean: l.Meta != nil && l.Meta.Clean, First: l.First, Last: l.Last, Files: len(l.Files),
		Damage: l.Count(inspect.Damage), Degraded: l.Count(inspect.Degraded), Notes: l.Count(inspect.Note), Problems: l.Problems, Next: nextOf(l),
	}
	for _, f := range l.Files {
		r.Records += f.Records
		r.Bytes += f.Bytes[inspect.Live] + f.Bytes.Wasted()
	}
	return r
}

// nextOf says what to do about what is wrong with a log; nothing if all is well.
func nextOf(l *inspect.Log) string {
	dir := shown(l.Dir)
	switch {
	case l.Damaged() && l.Repairable():
		return fmt.Sprintf("stop the process and keep a copy; then `mmapwal repair %s --dry-run` says what can be healed, and what would be lost", dir)
	case l.Damaged():
		return "no repair heals all of this: see the lines above, and docs/operations.md, before anything is removed"
	case l.Count(inspect.Degraded) > 0:
		return fmt.Sprintf("nothing is lost: `mmapwal repair %s`, or opening the log for writing, makes it whole; if it comes again, replace the disk", dir)
	}
	return ""
}

func printVerify(out io.Writer, l *inspect.Log) error {
	for _, p := range l.Problems {
		if err := printProblem(out, p); err != nil {
			return err
		}
	}
	r := reportOf(l)
	_, err := fmt.Fprintf(out, "read %s with %s, %s: entries %s\n", count(r.Files, "file"), count(r.Records, "record"), bytesText(r.Bytes), entriesText(l))
	if err != nil {
		return err
	}
	verdict := "OK: no damage"
	switch {
	case !r.OK:
		verdict = "DAMAGED: " + count(r.Damage, "place")
	case r.Degraded > 0:
		verdict = "DEGRADED: nothing is lost, but copies are: " + count(r.Degraded, "place")
	case !r.Clean:
		verdict = "OK: no damage; the log was not closed, and the next Open recovers it"
	}
	if r.Next != "" {
		verdict += "\nnext: " + r.Next
	}
	_, err = fmt.Fprintln(out, verdict)
	return err
}

func printProblem(out io.Writer, p inspect.Problem) error {
	if _, err := fmt.Fprintf(out, "%s: %s: %s\n", p.Severity, placeText(p), p.What); err != nil || p.Heal == "" {
		return err
	}
	_, err := fmt.Fprintf(out, "        %s\n", p.Heal)
	return err
}

// placeText says where a problem is, and what it affects.
func placeText(p inspect.Problem) string {
	text := "the log"
	if p.File != "" {
		text = shown(p.File)
	}
	if p.Offset > 0 || p.Length > 0 {
		text += fmt.Sprintf(", offset %d", p.Offset)
	}
	switch {
	case p.First != 0 && p.First == p.Last:
		text += fmt.Sprintf(", entry %d", p.First)
	case p.First != 0:
		text += fmt.Sprintf(", entries %d to %d", p.First, p.Last)
	}
	return text
}
