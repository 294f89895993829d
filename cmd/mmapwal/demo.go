package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/demo"
	"github.com/spf13/cobra"
)

// nodeCommand is the hidden subcommand that a node of the demo runs.
const nodeCommand = "demo-node"

func newDemo() *cobra.Command {
	var c demo.Config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Kill the nodes of a Raft group while they write, and check that nothing is lost",
		Long: `demo starts three processes that form a Raft group on this machine, each on a
log of its own, and writes to them. Meanwhile it kills nodes with SIGKILL, the
leader among them, and starts them again. In the end it stops all nodes and
checks that every acknowledged write is in each of the three logs, once and in
order, and that the logs agree. It exits with 0 only if all of that holds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("seed") {
				c.Seed = uint64(rand.Uint32())
			}
			return runDemo(cmd, c)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&c.Writes, "writes", 10000, "writes that must be acknowledged")
	flags.IntVar(&c.Kills, "kills", 10, "times that a node is killed meanwhile")
	flags.StringVar(&c.Dir, "dir", "", "directory for the logs, made if missing (default a temporary one)")
	flags.BoolVar(&c.Keep, "keep", false, "leave the closed logs in the directory: node1, node2, node3")
	flags.Uint64Var(&c.Seed, "seed", 0, "seed of the data, the victims and the moments of the kills (default random)")
	return cmd
}

// runDemo runs the demo and prints how it went.
func runDemo(cmd *cobra.Command, c demo.Config) error {
	exe, err := os.Executable()
	if err != nil {
		return failed(fmt.Errorf("find the executable: %w", err))
	}
	screen := newScreen(cmd.OutOrStdout(), cmd.ErrOrStderr(), c.Writes)
	c.Node = []string{exe, nodeCommand}
	c.Out, c.Progress = screen, screen.progress
	report, err := demo.Run(cmd.Context(), c)
	screen.close()
	if wrong := (*demo.ConfigError)(nil); errors.As(err, &wrong) {
		return err
	}
	if report == nil {
		return failed(err)
	}
	if err := errors.Join(report.Print(cmd.OutOrStdout()), err); err != nil {
		return failed(err)
	}
	return failed(conclude(cmd, c.Keep, report))
}

// conclude says that all held.
func conclude(cmd *cobra.Command, keep bool, r *demo.Report) error {
	out := cmd.OutOrStdout()
	if keep {
		if _, err := fmt.Fprintf(out, "the logs are in %s\n", r.Dir); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "OK: all %d acknowledged writes are in each of the three logs, once and in order, and the logs agree\n", r.Writes)
	return err
}

// newDemoNode is the process of one node.
func newDemoNode() *cobra.Command {
	return &cobra.Command{
		Use:    nodeCommand,
		Short:  "Run a node of the demo; only the demo itself can",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// An interrupt from the terminal, or its end, goes to all; the parent ends the nodes.
			signal.Ignore(os.Interrupt, syscall.SIGHUP)
			return failed(demo.RunNode(cmd.InOrStdin(), cmd.OutOrStdout()))
		},
	}
}
