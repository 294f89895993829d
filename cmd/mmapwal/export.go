package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/spf13/cobra"
)

func newExport() *cobra.Command {
	var to, keyFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export --to dgraph SRC DST",
		Short: "Make a raftwal directory for Dgraph from a log",
		Long: fmt.Sprintf(`export makes DST, a raftwal directory that Dgraph opens, from the log in SRC. SRC
is opened for reading only; another process may have it open, then DST is the log
as it was when export began. DST must not exist, or be an empty directory. It is
written beside that under a temporary name (.DST.export-*), read again, compared
with SRC entry by entry, and only then given its name: an export that fails or is
interrupted leaves no DST. One that is killed leaves the temporary directory,
which may be deleted.

How the log becomes Dgraph's:

  - Raft ID, group ID, checkpoint, hard state and snapshot are taken as they are.
    Dgraph keeps the snapshot in wal.meta: with its metadata it may have at most
    %d bytes. A larger one is refused.
  - The entries behind the snapshot are written; those that were retained below
    it are left out.
  - DST is not encrypted, and has no checksums. With --key-file, the file with the
    master key, the entries of an encrypted log are decrypted.`, dgraph.MaxSnapshot),
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to != "dgraph" {
				return fmt.Errorf("--to %q: only dgraph can be exported to", to)
			}
			c := conversion{src: args[0], dst: args[1], verb: "export", errs: cmd.ErrOrStderr()}
			var err error
			if c.srcKey, err = readKeyIf(keyFile); err != nil {
				return err
			}
			if err := c.checkPlaces(); err != nil {
				return err
			}
			s, err := c.exportDgraph(cmd.Context())
			if err != nil {
				return failed(err)
			}
			return failed(s.print(cmd.OutOrStdout(), asJSON))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "what shall open DST: dgraph")
	flags.StringVar(&keyFile, "key-file", "", "file with the master key of SRC (default: SRC is not encrypted)")
	flags.BoolVar(&asJSON, "json", false, "print the summary as JSON")
	// These fail for a flag that does not exist only.
	_ = cmd.MarkFlagRequired("to")
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions([]string{"dgraph"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// exportDgraph makes dst, for Dgraph, from a log of this program.
func (c *conversion) exportDgraph(ctx context.Context) (s *summary, err error) {
	wal, err := openExportSource(c.src, c.srcKey)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, wal.Close()) }()
	src, err := contentsOf(wal)
	if err != nil {
		return nil, err
	}
	m := c.newMeter(src)
	defer m.close()
	err = c.beside(func(tmp string) error {
		if err := dgraph.Write(ctx, tmp, src, m.wrote); err != nil {
			return err
		}
		written, err := dgraph.Open(tmp, nil)
		if err != nil {
			return err
		}
		return c.compare(ctx, src, &written.Contents, m.compared)
	})
	if err != nil {
		return nil, err
	}
	s = c.summarize(src)
	stats := wal.Stats()
	s.Files, s.LeftOut = stats.Files, wal.NumEntries()-s.Entries
	if stats.Encrypted {
		s.EncryptedFiles = max(0, stats.Files-stats.PlainFiles)
	}
	return s, nil
}

// openExportSource opens the log in dir, with a key if it is encrypted.
func openExportSource(dir string, key []byte) (*mmapwal.DiskStorage, error) {
	if key == nil {
		return openSource(dir, nil)
	}
	encrypted, err := isEncrypted(dir)
	if err != nil {
		return nil, err
	}
	if !encrypted {
		return nil, fmt.Errorf("%s: %w: leave out --key-file", dir, mmapwal.ErrNotEncrypted)
	}
	return openSource(dir, key)
}
