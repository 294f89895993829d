package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/spf13/cobra"
)

func newRestore() *cobra.Command {
	var f lookFlags
	var raftID uint64
	cmd := &cobra.Command{
		Use:   "restore IN... DIR",
		Short: "Make a log again from a backup and its increments",
		Long: `restore makes a log in DIR from the backup IN, or from a full backup and the
increments that build on it, in order. DIR must not exist, or be an empty directory, or
the root of a new volume; it keeps its owner and mode, and root gives the files to that
owner: make DIR first for a service with a user of its own. The log is written to
DIR/.restoring, compared with the hashes in the backups, opened, closed cleanly, read
again byte by byte, and only then moved to DIR: a restore that fails leaves DIR as it
was. After one that was killed there is no log in DIR: run it again.

A node that comes back with an old log has forgotten entries that it acknowledged and
votes that it cast: its group can lose committed entries, or elect two leaders in one
term. So restore all nodes of the group from the backup of one node, or let what was
restored join the group as a new member with an ID that it has never seen: --raft-id
stores a node's ID. Without it the log gets its old one back.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.prepare(); err != nil {
				return err
			}
			ins, dir := args[:len(args)-1], args[len(args)-1]
			opts := &backup.RestoreOptions{KeyWrapper: f.wrapper}
			if cmd.Flags().Changed("raft-id") {
				opts.RaftID = &raftID
			}
			m, err := restore(cmd.Context(), cmd.ErrOrStderr(), ins, dir, opts)
			if err != nil {
				return err
			}
			if f.json {
				return failed(printJSON(cmd.OutOrStdout(), m))
			}
			if opts.RaftID != nil {
				m.RaftID = raftID
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is the log as it was at %s: %s; all of it was read and checked\n",
				shown(dir), m.Created.Format("2006-01-02 15:04:05 MST"), describeManifest(&m))
			return failed(err)
		},
	}
	f.add(cmd, "print the manifest of the last backup as JSON")
	cmd.Flags().Uint64Var(&raftID, "raft-id", 0, "give the log this Raft ID (default: the one that it had)")
	return cmd
}

// restore opens the backups and restores them. An error of opening is one of the
// command line.
func restore(ctx context.Context, errs io.Writer, ins []string, dir string, opts *backup.RestoreOptions) (m mmapwal.Manifest, err error) {
	bar := newLateBar(errs)
	defer bar.close()
	var readers []io.Reader
	var total int64
	for _, name := range ins {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrPermission) {
			return m, failed(err)
		}
		if err != nil {
			return m, err
		}
		defer f.Close()
		r, err := newMeteredFile(ctx, f, nil)
		if err != nil {
			return m, err
		}
		before := total
		r.progress = func(done, _ int64) { bar.progress(before+done, total) }
		total += r.total
		readers = append(readers, r)
	}
	m, err = backup.Restore(ctx, dir, opts, readers...)
	if errors.Is(err, backup.ErrExists) {
		return m, err
	}
	return m, failed(err)
}
