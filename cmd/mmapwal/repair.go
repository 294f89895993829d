package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/repair"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// repairFlags are the flags of repair.
type repairFlags struct {
	lookFlags
	dryRun    bool
	yes       bool
	notDgraph bool
	backup    string
}

func newRepair() *cobra.Command {
	var f repairFlags
	cmd := &cobra.Command{
		Use:   "repair DIR",
		Short: "Make a damaged log one that opens, keeping a copy of all that is changed",
		Long: `repair makes the log in DIR, which no process may have open, one that verify finds
nothing wrong with. Slots and header pages are written anew from the records, pages of
wal.meta from their twins; a torn tail is dropped; a file with damaged records that do
not count any more, since a snapshot covers them or later ones replaced them, is
written anew without those. Where entries that count are damaged it keeps those in
front of them; a node that lost entries must not go on as if nothing had happened: the
last line says what to do.

The repair is tried in memory first, and done only if that ends in a log without
damage. Before anything is changed, every file that will be changed, set aside or
removed is copied to a directory beside DIR (or --backup-dir), and the copies are
checked. If it is interrupted, at any point, run it again.

--dry-run says what would be done, and changes nothing. Without it and without --yes
repair asks, on a terminal.

It exits with 0 if there is nothing to repair, or all is repaired and nothing is lost; 1 if
there is damage that was not repaired, by --dry-run too; 2 if it was called wrongly; 3 if
it could not look (permission, key, or another process has the log open); 4 if it repaired
the log, and entries are lost, or may be: the node must not start as the member that it
was; 5 by --dry-run, if nothing is lost but a copy of something.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.prepare(); err != nil {
				return err
			}
			if err := f.check(cmd.InOrStdin()); err != nil {
				return err
			}
			err := f.repair(cmd, args[0])
			if errors.Is(err, mmapwal.ErrLocked) {
				err = fmt.Errorf("%s: another process has the log open: stop it first (%w)", args[0], err)
			}
			return failed(err)
		},
	}
	f.add(cmd, "print one JSON object")
	flags := cmd.Flags()
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and change nothing")
	flags.BoolVar(&f.yes, "yes", false, "repair without asking")
	flags.BoolVar(&f.notDgraph, "not-dgraph", false, "Dgraph has never opened this log: what looks as if it had is damage")
	flags.StringVar(&f.backup, "backup-dir", "", "directory for the copies, new or empty (default beside DIR: <DIR>.repair-<time>)")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "yes")
	return cmd
}

// check refuses to ask where nobody answers.
func (f *repairFlags) check(in io.Reader) error {
	if f.dryRun || f.yes {
		return nil
	}
	if file, ok := in.(*os.File); f.json || !ok || !term.IsTerminal(int(file.Fd())) {
		return errors.New("there is nobody to ask: give --dry-run to see what would be done, or --yes to do it")
	}
	return nil
}

func (f *repairFlags) repair(cmd *cobra.Command, dir string) (err error) {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	bar := newLateBar(cmd.ErrOrStderr())
	progress := func(done, total int64) { bar.progress(done, total) }
	plan, err := repair.Rehearse(ctx, dir, repair.Options{Wrapper: f.wrapper, NotDgraph: f.notDgraph, DryRun: f.dryRun, Progress: progress})
	bar.close()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plan.Close()) }()
	r := &plan.Report
	if f.dryRun || !r.Needed || r.Refused != "" {
		return errors.Join(f.print(out, r), verdict(r))
	}
	if !f.yes {
		if err := printRepair(out, r); err != nil {
			return err
		}
		if !confirmed(cmd.InOrStdin(), out) {
			return errors.New("nothing was changed")
		}
	}
	backup, err := f.backupDir(dir)
	if err != nil {
		return err
	}
	bar = newLateBar(cmd.ErrOrStderr())
	err = plan.Execute(ctx, backup)
	bar.close()
	if err != nil {
		return err
	}
	return errors.Join(f.print(out, r), verdict(r))
}

// backupDir returns the directory for the copies: by default one beside dir.
func (f *repairFlags) backupDir(dir string) (string, error) {
	if f.backup != "" {
		return f.backup, nil
	}
	abs, err := filepath.Abs(dir)
	return abs + ".repair-" + time.Now().UTC().Format("20060102T150405.000Z"), err
}

// verdict returns what repair ends with, if that is not that all is well.
func verdict(r *repair.Report) error {
	switch {
	case r.Refused != "" && r.Damaged:
		return found(exitFailed, fmt.Errorf("%s cannot be repaired; nothing was changed: %s", shown(r.Dir), r.Refused))
	case r.Refused != "":
		return found(exitDegraded, fmt.Errorf("%s is degraded, and cannot be repaired; nothing was changed: %s", shown(r.Dir), r.Refused))
	case !r.Done && r.Damaged:
		return found(exitFailed, fmt.Errorf("%s is damaged; nothing was changed", shown(r.Dir)))
	case !r.Done && r.Degraded:
		return found(exitDegraded, fmt.Errorf("%s is degraded; nothing was changed", shown(r.Dir)))
	case len(r.Remains) > 0:
		return found(exitFailed, fmt.Errorf("%s: damage in %s remains", shown(r.Dir), count(len(r.Remains), "place")))
	case r.Done && r.Loses():
		return found(exitLost, fmt.Errorf("%s is repaired, and entries are lost, or may be: do not start the node as the member that it was", shown(r.Dir)))
	}
	return nil
}

// confirmed asks.
func confirmed(in io.Reader, out io.Writer) bool {
	_, _ = fmt.Fprint(out, "Repair it? [y/N] ") // without an answer nothing is done
	line, _ := bufio.NewReader(in).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

func (f *repairFlags) print(out io.Writer, r *repair.Report) error {
	if f.json {
		return printJSON(out, r)
	}
	return printRepair(out, r)
}

func printRepair(out io.Writer, r *repair.Report) error {
	var b strings.Builder
	if !r.Needed {
		fmt.Fprintf(&b, "%s: nothing to repair: entries %s\n", shown(r.Dir), repairedText(r.Before))
	}
	for _, file := range r.Files {
		printRepairFile(&b, r, &file)
	}
	if r.Needed && r.Refused == "" {
		fmt.Fprintf(&b, "entries before: %s\nentries after:  %s\nlost: %s\n", repairedText(r.Before), repairedText(r.After), lostText(r))
	}
	if m := r.MayDiffer; m != nil {
		fmt.Fprintf(&b, "may be others: entries %s may be ones that had been replaced by what cannot be read\n", rangeText(m.First, m.Last))
	}
	for _, p := range r.Remains {
		fmt.Fprintf(&b, "NOT REPAIRED: %s: %s\n", placeText(p), p.What)
	}
	switch {
	case r.Done:
		fmt.Fprintf(&b, "the files as they were are in %s\n", shown(r.Backup))
	case len(r.Changed) > 0:
		fmt.Fprintf(&b, "would be copied first: %s\n", strings.Join(r.Changed, ", "))
	}
	if r.Next != "" {
		fmt.Fprintf(&b, "next: %s\n", r.Next)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func isDamage(p inspect.Problem) bool { return p.Severity == inspect.Damage }

// printRepairFile says what was found in a file, and done. Of files with which all is
// well it says nothing.
func printRepairFile(b *strings.Builder, r *repair.Report, f *repair.File) {
	if len(f.Found) == 0 && len(f.Done) == 0 && f.Before == f.After {
		return
	}
	does := "would be"
	if r.Done {
		does = "done"
	}
	if len(f.Done) == 0 && f.Before.Entries+f.After.Entries == 0 && !slices.ContainsFunc(f.Found, isDamage) {
		return // notes: the next Open sees to them
	}
	fmt.Fprintf(b, "%s\n", f.Name)
	for _, p := range f.Found {
		if isDamage(p) || len(f.Done) > 0 {
			fmt.Fprintf(b, "  %s: %s: %s\n", p.Severity, placeText(p), p.What)
		}
	}
	for _, what := range f.Done {
		fmt.Fprintf(b, "  %s: %s\n", does, what)
	}
	if f.Before.Entries+f.After.Entries > 0 {
		fmt.Fprintf(b, "  entries before: %s, after: %s\n", repairedText(f.Before), repairedText(f.After))
	}
}

// repairedText is a range of entries, not all of which can be read.
func repairedText(r repair.Range) string {
	if r.First == 0 {
		return "none"
	}
	n := int(r.Last - r.First + 1)
	if r.Entries < n {
		return fmt.Sprintf("%s (%d, of which %d can be read)", rangeText(r.First, r.Last), n, r.Entries)
	}
	return fmt.Sprintf("%s (%d)", rangeText(r.First, r.Last), n)
}

func lostText(r *repair.Report) string {
	switch {
	case r.Lost != nil && r.More:
		return rangeText(r.Lost.First, r.Lost.Last) + ", and maybe entries behind them"
	case r.Lost != nil:
		return rangeText(r.Lost.First, r.Lost.Last)
	case r.More:
		return fmt.Sprintf("maybe entries from %d on: how many there were is not known", r.After.Last+1)
	case r.Stale:
		return "nothing for certain"
	}
	return "nothing that counts"
}
