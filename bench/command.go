package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/report"
	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
	"github.com/spf13/cobra"
)

// flags are what the command line says.
type flags struct {
	dir       string
	rounds    int
	time      time.Duration
	entries   int
	grow      int
	logs      int
	only      []string
	workloads []string
	seed      uint64
	smoke     bool
	json, svg string
	doc       string
}

func newCommand() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:           "bench",
		Short:         "Measure this log beside others",
		Long:          help(),
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dir, "dir", ".", "directory on the disk to be measured")
	fs.IntVar(&f.rounds, "rounds", 3, "rounds; each measures every contender")
	fs.DurationVar(&f.time, "time", 200*time.Millisecond, "time for each measurement; three times that if nothing is synced")
	fs.IntVar(&f.entries, "entries", 200_000, "entries with which logs are opened again, and compacted")
	fs.IntVar(&f.grow, "grow", 200_000, "entries to which logs grow")
	fs.IntVar(&f.logs, "logs", 1000, "idle logs in one process")
	fs.StringSliceVar(&f.only, "only", nil, "contenders to measure; the reference always is")
	fs.StringSliceVar(&f.workloads, "workload", nil, "workloads and studies to measure")
	fs.Uint64Var(&f.seed, "seed", 1, "seed of orders and contents")
	fs.BoolVar(&f.smoke, "smoke", false, "everything once, and tiny: whether it works, not how fast")
	fs.StringVar(&f.json, "json", "", "file to write the results to")
	fs.StringVar(&f.svg, "svg", "", "directory to draw charts in")
	fs.StringVar(&f.doc, "doc", "", "document to put the tables into, between lines such as <!-- ratios: begin --> and <!-- ratios: end -->")
	return cmd
}

// help lists what can be named on the command line.
func help() string {
	var b strings.Builder
	b.WriteString("Measure this log beside others, in random order, and compare each with the reference:\n" +
		"the same bytes written without a log.\n\nContenders:\n")
	for _, c := range contender.All() {
		fmt.Fprintf(&b, "  %-18s %s\n", c.Name, c.About)
	}
	fmt.Fprintf(&b, "\nWorkloads:\n  %s\n", strings.Join(workloadNames(), "\n  "))
	fmt.Fprintf(&b, "\nStudies, which have no reference:\n  %s\n", strings.Join(suite.Studies(), "\n  "))
	return b.String()
}

func workloadNames() []string {
	var names []string
	for _, w := range suite.Workloads() {
		names = append(names, w.Name)
	}
	return names
}

// run measures, and shows what was found.
func (f *flags) run(ctx context.Context, out, errs io.Writer) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	s := newScreen(errs, errs, cfg.Steps())
	cfg.Log, cfg.Progress = s, s.progress
	res, err := suite.Run(ctx, cfg)
	s.close()
	if err != nil {
		return err
	}
	return f.show(out, res)
}

func (f *flags) show(out io.Writer, res *suite.Results) error {
	err := report.Tables(out, res)
	if f.json != "" {
		err = errors.Join(err, report.JSON(f.json, res))
	}
	if f.svg != "" {
		err = errors.Join(err, report.Charts(f.svg, res))
	}
	if f.doc != "" {
		err = errors.Join(err, report.Document(f.doc, res))
	}
	return err
}

// config checks the flags.
func (f *flags) config() (*suite.Config, error) {
	cfg := &suite.Config{
		Dir: f.dir, Rounds: f.rounds, Time: f.time, Entries: f.entries, Grow: f.grow, ReadEntries: 20_000,
		IdleLogs: f.logs, Seed: f.seed,
	}
	if f.smoke {
		cfg.Rounds, cfg.Time, cfg.Entries, cfg.ReadEntries = 1, 2*time.Millisecond, 2_000, 500
		cfg.Grow, cfg.IdleLogs, cfg.FileBytes = 2_000, 5, 1<<20
	}
	if cfg.Rounds < 1 || cfg.Time <= 0 || cfg.Entries < 1 || cfg.Grow < 1 || cfg.IdleLogs < 1 {
		return nil, errors.New("--rounds, --time, --entries, --grow and --logs must be positive")
	}
	if _, err := os.Stat(f.dir); err != nil {
		return nil, err
	}
	if err := f.chooseContenders(cfg); err != nil {
		return nil, err
	}
	return cfg, f.chooseWorkloads(cfg)
}

func (f *flags) chooseContenders(cfg *suite.Config) error {
	all := contender.All()
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	if err := known("contender", f.only, names); err != nil {
		return err
	}
	cfg.Contenders = slices.DeleteFunc(all, func(c contender.Contender) bool {
		return c.Name != contender.Reference && !chosen(f.only, c.Name)
	})
	return nil
}

func (f *flags) chooseWorkloads(cfg *suite.Config) error {
	if err := known("workload", f.workloads, append(workloadNames(), suite.Studies()...)); err != nil {
		return err
	}
	cfg.Workloads = slices.DeleteFunc(suite.Workloads(), func(w suite.Workload) bool { return !chosen(f.workloads, w.Name) })
	cfg.Studies = slices.DeleteFunc(suite.Studies(), func(name string) bool { return !chosen(f.workloads, name) })
	return nil
}

// chosen says whether name is one of those; none of them means all.
func chosen(those []string, name string) bool { return len(those) == 0 || slices.Contains(those, name) }

// known returns an error if one of names is not among all.
func known(kind string, names, all []string) error {
	for _, name := range names {
		if !slices.Contains(all, name) {
			return fmt.Errorf("no %s is called %q; there are %s", kind, name, strings.Join(all, ", "))
		}
	}
	return nil
}
