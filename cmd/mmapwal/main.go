// Command mmapwal looks after Raft logs of package mmapwal, and shows them at
// work.
//
// It exits with 0 if all is well, with 1 if there is damage, or something failed, with 2 if it
// was called wrongly, with 3 if it could not look at the log, with 4 if a log was repaired and
// entries are lost, and with 5 if nothing is lost but a copy of something.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes the command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup wants it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once

	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	err = aboutKey(cmd, err)
	code := codeOf(err)
	_, _ = fmt.Fprintf(stderr, "%s: %s\n", cmd.CommandPath(), printable(err.Error())) // there is nowhere else to say it
	if code == exitUsage {
		_, _ = fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	if f := (*failure)(nil); wantsJSON(cmd) && !(errors.As(err, &f) && f.told) {
		_ = printJSONLine(stdout, failureReport{Error: err.Error(), Code: code})
	}
	return code
}

// newRoot returns the command with all its subcommands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "mmapwal",
		Short:         "Look after Raft logs of package mmapwal, and see them at work",
		Long:          "Look after Raft logs of package mmapwal, and see them at work.\n\n" + exitHelp,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newDemo(), newDemoNode(), newInfo(), newDump(), newVerify(), newMap(), newRekey(), newRepair(), newBench(), newImport(), newExport(),
		newBackup(), newRestore())
	return root
}

// version returns the version of the module that the command was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
