package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/diskbench"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/spf13/cobra"
)

// Limits of bench --duration; a longer one would keep too many samples in memory.
const (
	shortestBench = 10 * time.Millisecond
	longestBench  = 10 * time.Minute
)

// benchFlags are the flags of bench.
type benchFlags struct {
	duration time.Duration
	svg      string
	json     bool
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench DIR",
		Short: "Find out whether the disk of a directory is good enough for a Raft log",
		Long: fmt.Sprintf(`bench measures on the disk that DIR is on, in a temporary directory in DIR that is
removed afterwards (%s*; one that was killed leaves it): how long the reference takes,
the least that any log has to do, a write of 4 KiB to a file that was written before
and fdatasync; and, taking turns with it, how long this log takes to save 1 entry of
128 B, 16 of 1 KiB and 64 of 4 KiB so that they survive a power cut.

It prints percentiles, histograms, the ratio to the reference, and whether the disk is good
enough: like etcd it wants 99 of 100 syncs to take less than 10 ms. A file system in
memory, in a container or over a network, and a disk that is faster than disks are,
proves nothing, and it says so. What else uses the disk meanwhile is measured, too.

It takes %d MiB of space, and exits with 0 whatever the verdict is.`, diskbench.Pattern, diskbench.Space>>20),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args[0]); err != nil {
				return err
			}
			return failed(f.bench(cmd, args[0]))
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.duration, "duration", 10*time.Second, "how long to measure")
	flags.StringVar(&f.svg, "svg", "", "write the histograms to this file, too")
	flags.BoolVar(&f.json, "json", false, "print one JSON object")
	return cmd
}

func (f *benchFlags) check(dir string) error {
	if f.duration < shortestBench || f.duration > longestBench {
		return fmt.Errorf("--duration %v: from %v to %v", f.duration, shortestBench, longestBench)
	}
	if _, err := os.Stat(filepath.Join(dir, metafile.Name)); err == nil {
		return fmt.Errorf("%s is the directory of a log: take the one that it is in, on the same disk", dir)
	}
	if f.svg != "" {
		if info, err := os.Stat(filepath.Dir(f.svg)); err != nil || !info.IsDir() {
			return fmt.Errorf("--svg %s: there is no such directory", f.svg)
		}
	}
	return nil
}

func (f *benchFlags) bench(cmd *cobra.Command, dir string) error {
	s := newScreen(cmd.OutOrStdout(), cmd.ErrOrStderr(), int(f.duration.Milliseconds()))
	r, err := diskbench.Run(cmd.Context(), dir, f.duration, func(over time.Duration) {
		s.progress(int(min(over, f.duration).Milliseconds()))
	})
	s.close()
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; nothing is left behind")
	}
	if err != nil {
		return err
	}
	if f.svg != "" {
		if err := os.WriteFile(f.svg, []byte(r.SVG()), 0o666); err != nil {
			return err
		}
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	return printBench(cmd.OutOrStdout(), r)
}

func printBench(out io.Writer, r *diskbench.Result) error {
	if _, err := fmt.Fprintf(out, "%s: %s, %s free, measured for %.1f s\n\n", r.Dir, r.System.Title(), bytesText(r.System.Free), r.Seconds); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") } // Flush tells
	row("", "p50", "p99", "p99.9", "max", "per second", "p50 / reference")
	for _, s := range r.Series {
		row(s.Name, diskbench.Time(s.P50), diskbench.Time(s.P99), diskbench.Time(s.P999), diskbench.Time(s.Max),
			fmt.Sprintf("%.0f", s.PerSecond), fmt.Sprintf("%.2f", s.Ratio))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	for _, s := range r.Series {
		printHistogram(&b, &s)
	}
	fmt.Fprintf(&b, "\n%s: %s\n", strings.ToUpper(string(r.Verdict)), r.Reason)
	_, err := io.WriteString(out, b.String())
	return err
}

// printHistogram draws bars; what happened at all has one.
func printHistogram(b *strings.Builder, s *diskbench.Series) {
	const columns = 50
	most := 1
	for _, c := range s.Buckets {
		most = max(most, c.Count)
	}
	fmt.Fprintf(b, "\n%s: %d calls\n", s.Name, s.Count)
	for _, c := range s.Buckets {
		n := (c.Count*columns + most - 1) / most
		line := fmt.Sprintf("%9s to %8s  %-*s %d", diskbench.Time(c.From), diskbench.Time(c.To), columns, strings.Repeat("#", n), c.Count)
		fmt.Fprintln(b, line)
	}
}
