package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/etcd"
	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/spf13/cobra"
)

// The exit codes of all commands.
const (
	exitOK       = 0
	exitFailed   = 1 // there is damage; or what was to be done failed
	exitUsage    = 2 // called wrongly
	exitNoLook   = 3 // the log could not be looked at
	exitLost     = 4 // repaired, but entries are lost, or may be: the node must not start
	exitDegraded = 5 // nothing is lost but a copy of something
)

// exitHelp is what --help says of the exit codes.
const exitHelp = `Exit codes: 0 all is well; 1 there is damage, or it failed; 2 called wrongly; 3 it could
not look (no such directory, permission, key, lock); 4 repaired, but entries are lost, or
may be: the node must not start; 5 nothing is lost, but one of two copies of something is.
With --json an error is an object on standard output, too.`

// failure is the error of a command that was called rightly. All others are of
// the command line.
type failure struct {
	err  error
	code int  // 0: as the error says
	told bool // with --json the output has it
}

// Error implements error.
func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns what failed.
func (f *failure) Unwrap() error { return f.err }

// failed marks err as the failure of a command that was called rightly.
func failed(err error) error {
	if f := (*failure)(nil); err == nil || errors.As(err, &f) {
		return err // it says more by now
	}
	return &failure{err: err}
}

// found is the error of a command that was called rightly, and whose output has said what
// is wrong.
func found(code int, err error) error {
	if err == nil {
		return nil
	}
	return &failure{err: err, code: code, told: true}
}

// noLook are the errors that say nothing of what a log holds.
var noLook = []error{
	fs.ErrNotExist, fs.ErrPermission, mmapwal.ErrLocked, vfs.ErrLocked, mmapwal.ErrUnsupported, mmapwal.ErrKeyRequired, mmapwal.ErrWrongKey, mmapwal.ErrKeyLength,
	mmapwal.ErrNotEncrypted, encryption.ErrKeyRequired, encryption.ErrWrongKey, mmapwal.ErrForeign, mmapwal.ErrVersion,
	dgraph.ErrNotDgraph, dgraph.ErrKeyRequired, dgraph.ErrWrongKey, dgraph.ErrKeyLost, dgraph.ErrNotEncrypted, etcd.ErrNotEtcd,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOTDIR, syscall.EROFS,
}

// codeOf returns the exit code that goes with an error.
func codeOf(err error) int {
	f := (*failure)(nil)
	if !errors.As(err, &f) {
		return exitUsage
	}
	if f.code != 0 {
		return f.code
	}
	if errors.Is(err, mmapwal.ErrCorrupt) {
		return exitFailed
	}
	if not := (*vfs.NotRegularError)(nil); errors.As(err, &not) {
		return exitNoLook
	}
	for _, e := range noLook {
		if errors.Is(err, e) {
			return exitNoLook
		}
	}
	return exitFailed
}

// aboutKey adds to an error that a key is missing, or the wrong one, which one that was, and
// where to give another.
func aboutKey(cmd *cobra.Command, err error) error {
	name, noFlag := cmd.Flags().GetString("key-file")
	switch {
	case noFlag != nil:
		return err
	case errors.Is(err, mmapwal.ErrWrongKey), errors.Is(err, dgraph.ErrWrongKey):
		return fmt.Errorf("%w: it is not the key in %s; give the right one with --key-file: try those that there were", err, shown(name))
	case errors.Is(err, mmapwal.ErrKeyRequired):
		return fmt.Errorf("%w: give it with --key-file", err)
	}
	return err
}

// failureReport is what a command that failed says to programs.
type failureReport struct {
	Error string `json:"error"`
	Code  int    `json:"exit_code"`
}

// wantsJSON reports whether a command was called with --json.
func wantsJSON(cmd *cobra.Command) bool {
	asJSON, err := cmd.Flags().GetBool("json")
	return err == nil && asJSON
}

// printJSONLine prints v as one line.
func printJSONLine(out io.Writer, v any) error { return json.NewEncoder(out).Encode(v) }
