package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/spf13/cobra"
)

func newRekey() *cobra.Command {
	var oldFile, newFile string
	cmd := &cobra.Command{
		Use:   "rekey DIR --key-file OLD --new-key-file NEW",
		Short: "Replace the master key of an encrypted log, or encrypt a log",
		Long: `rekey replaces the master key of the log in DIR, which no process may have open.
Only wal.meta is rewritten. If it is interrupted, at any point, either the old
key opens the log or the new one; run it again.

A key file holds a key of 16, 24 or 32 random bytes as it is; one line break behind it
is ignored. This makes one that only you can read:

  (umask 077; head -c 32 /dev/urandom > KEY)        or: openssl rand -out KEY 32

Keep a copy of it where the log is not: without it nobody can read the log.

Without --key-file the log must not be encrypted yet. Then what is stored from
now on is; what is there stays as it is until compaction removes it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			newKey, err := readKey(newFile)
			if err != nil {
				return err
			}
			var oldKey []byte
			if oldFile != "" {
				if oldKey, err = readKey(oldFile); err != nil {
					return err
				}
			}
			return failed(rekey(cmd.OutOrStdout(), args[0], oldKey, newKey))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&oldFile, "key-file", "", "file with the present master key (default: the log is not encrypted)")
	flags.StringVar(&newFile, "new-key-file", "", "file with the new master key")
	_ = cmd.MarkFlagRequired("new-key-file") // it fails for a flag that does not exist only
	return cmd
}

// readKey reads a master key from a file.
func readKey(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const longest = 32
	key, err := io.ReadAll(io.LimitReader(f, longest+3))
	if err != nil {
		return nil, err
	}
	for _, lineBreak := range []string{"\r\n", "\n"} {
		line, ok := bytes.CutSuffix(key, []byte(lineBreak))
		if n := len(line); ok && (n == 16 || n == 24 || n == 32) {
			return line, nil
		}
	}
	if n := len(key); n != 16 && n != 24 && n != 32 {
		return nil, fmt.Errorf("%s holds no key: a key has 16, 24 or 32 bytes, and no encoding like hex or Base64; to make a new one: (umask 077; head -c 32 /dev/urandom > KEY)", shown(name))
	}
	return key, nil
}

// rekey opens the log in dir with oldKey, nil for a log that is not encrypted, and
// makes newKey the one that opens it.
func rekey(out io.Writer, dir string, oldKey, newKey []byte) (err error) {
	encrypted, err := isEncrypted(dir)
	if err != nil {
		return err
	}
	if encrypted && oldKey == nil {
		return fmt.Errorf("%s: %w", dir, mmapwal.ErrKeyRequired)
	}
	if !encrypted && oldKey != nil {
		return fmt.Errorf("%s: %w: to encrypt it, leave out --key-file", dir, mmapwal.ErrNotEncrypted)
	}
	opts := &mmapwal.Options{MustExist: true, Key: oldKey, Logger: slog.New(slog.DiscardHandler)}
	if !encrypted {
		opts.Key = newKey
	}
	wal, err := mmapwal.Open(dir, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wal.Close()) }()
	if !encrypted {
		if err := wal.Close(); err != nil { // which removes what it can
			return err
		}
		_, err = fmt.Fprintf(out, "%s is encrypted from now on; %d older files are not until compaction removes them\n", dir, wal.Stats().PlainFiles)
		return err
	}
	if err := wal.RotateKey(newKey); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s opens with the new key only\n", dir)
	return err
}

// isEncrypted tells without a key, and without making a log where there is none.
func isEncrypted(dir string) (bool, error) {
	wal, err := mmapwal.Open(dir, &mmapwal.Options{ReadOnly: true, Logger: slog.New(slog.DiscardHandler)})
	if errors.Is(err, mmapwal.ErrKeyRequired) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, wal.Close()
}
