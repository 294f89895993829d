package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/spf13/cobra"
)

func newBackup() *cobra.Command {
	var f lookFlags
	var since string
	cmd := &cobra.Command{
		Use:   "backup DIR OUT",
		Short: "Write a backup of a log, in use or not, to a file",
		Long: `backup writes the log in DIR to the file OUT, which must not exist, as a tar stream. It
opens DIR for reading only: another process may have it open and go on; then OUT is
the log as it was when the backup began. If the owner compacts or clears what is being
copied, the backup is begun anew; a program that does so all the time makes its
backups better itself, with DiskStorage.Backup.

Every record is checked on its way: of a damaged log there is no backup. OUT is written
under a temporary name, synced, read again, compared with its hashes, and only then
given its name.

--since makes an increment: only what is new since an earlier backup, given as the
backup itself or as its manifest (the last file in it, or what --json prints). To
restore it, that one is needed as well, and those it builds on in turn.

The backup of an encrypted log is encrypted, by the same key; --key-file is needed to
make it, and to restore it.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b := backupRun{dir: args[0], out: args[1], errs: cmd.ErrOrStderr()}
			if err := b.prepare(&f, since); err != nil {
				return err
			}
			m, err := b.run(cmd.Context())
			if err != nil {
				if errors.Is(err, mmapwal.ErrCorrupt) && since == "" {
					err = fmt.Errorf("%w: of a damaged log there is no backup; `mmapwal verify %s` says what to do", err, shown(args[0]))
				}
				return failed(err)
			}
			if f.json {
				return failed(printJSON(cmd.OutOrStdout(), m))
			}
			return failed(b.print(cmd.OutOrStdout(), m))
		},
	}
	f.add(cmd, "print the manifest as JSON")
	cmd.Flags().StringVar(&since, "since", "", "make an increment over this backup, or the backup with this manifest")
	return cmd
}

// backupRun is one call of the command.
type backupRun struct {
	dir, out string
	errs     io.Writer
	flags    *lookFlags
	since    string
	size     int64 // of what was written, in bytes
}

// prepare checks the command line.
func (b *backupRun) prepare(f *lookFlags, since string) error {
	b.flags, b.since = f, since
	if err := f.prepare(); err != nil {
		return err
	}
	if _, err := os.Lstat(b.out); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", b.out, errors.Join(err, fs.ErrExist))
	}
	if since != "" {
		_, err := os.Stat(since)
		return err
	}
	return nil
}

func (b *backupRun) run(ctx context.Context) (m mmapwal.Manifest, err error) {
	bar := newLateBar(b.errs)
	defer bar.close()
	var parent *mmapwal.Manifest
	if b.since != "" {
		p, err := readManifest(ctx, b.since, bar.progress)
		if err != nil {
			return m, fmt.Errorf("%s: %w", b.since, err)
		}
		parent = &p
	}
	f, err := os.CreateTemp(filepath.Dir(b.out), "."+filepath.Base(b.out)+".backup-")
	if err != nil {
		return m, &failure{err: err, code: exitFailed} // it is not the log that could not be read
	}
	defer func() {
		_ = f.Close() // what counts was synced
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	const tries = 5
	for try := 1; ; try++ {
		m, err = b.write(ctx, f, parent, bar)
		if !errors.Is(err, mmapwal.ErrChanged) || try == tries {
			break
		}
	}
	if err != nil {
		return m, err
	}
	again, err := readManifest(ctx, f.Name(), bar.progress)
	if err != nil {
		return m, fmt.Errorf("%s: what was written cannot be read again: %w", f.Name(), err)
	}
	if again.Hash() != m.Hash() {
		return m, fmt.Errorf("%s: %w: it is not what was written", f.Name(), archive.ErrDamaged)
	}
	if err := os.Rename(f.Name(), b.out); err != nil {
		return m, err
	}
	return m, vfs.OS().SyncDir(filepath.Dir(b.out))
}

// write writes a backup of what the log holds now to f, durably.
func (b *backupRun) write(ctx context.Context, f *os.File, parent *mmapwal.Manifest, bar *lateBar) (m mmapwal.Manifest, err error) {
	wal, err := b.open()
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, wal.Close()) }()
	if err := f.Truncate(0); err != nil {
		return m, err
	}
	b.size = 0
	w := writerFunc(func(p []byte) (int, error) {
		n, err := f.WriteAt(p, b.size)
		b.size += int64(n)
		bar.progress(b.size, -1) // nobody knows how much it will be
		return n, err
	})
	if parent == nil {
		m, err = wal.Backup(ctx, w)
	} else {
		m, err = wal.BackupSince(ctx, w, *parent)
	}
	if err != nil {
		return m, err
	}
	return m, f.Sync()
}

type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func (b *backupRun) open() (*mmapwal.DiskStorage, error) {
	if b.flags.wrapper != nil {
		encrypted, err := isEncrypted(b.dir)
		if err != nil {
			return nil, err
		}
		if !encrypted {
			return nil, fmt.Errorf("%s: %w: leave out --key-file", b.dir, mmapwal.ErrNotEncrypted)
		}
	}
	return mmapwal.Open(b.dir, &mmapwal.Options{ReadOnly: true, KeyWrapper: b.flags.wrapper, Logger: slog.New(slog.DiscardHandler)})
}

// readManifest reads the manifest of a backup, and checks the backup; or a manifest
// alone.
func readManifest(ctx context.Context, name string, progress func(done, total int64)) (m mmapwal.Manifest, err error) {
	f, err := os.Open(name)
	if err != nil {
		return m, err
	}
	defer f.Close()
	head := make([]byte, 1)
	if _, err := f.ReadAt(head, 0); err == nil && bytes.Equal(head, []byte("{")) {
		p, err := io.ReadAll(io.LimitReader(f, archive.MaxManifest))
		if err != nil {
			return m, err
		}
		return archive.DecodeManifest(p)
	}
	r, err := newMeteredFile(ctx, f, progress)
	if err != nil {
		return m, err
	}
	return archive.Read(r, nil)
}

// meteredFile reads a file, and shows how far it has got.
type meteredFile struct {
	ctx         context.Context
	f           *os.File
	done, total int64
	progress    func(done, total int64)
}

func newMeteredFile(ctx context.Context, f *os.File, progress func(done, total int64)) (*meteredFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &meteredFile{ctx: ctx, f: f, total: info.Size(), progress: progress}, nil
}

// Read implements io.Reader.
func (m *meteredFile) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.f.Read(p)
	m.done += int64(n)
	m.progress(m.done, m.total)
	return n, err
}

func (b *backupRun) print(out io.Writer, m mmapwal.Manifest) error {
	kind := "a full backup"
	if m.Incremental() {
		kind = "an increment"
	}
	_, err := fmt.Fprintf(out, "%s is %s of %s, %s: %s; checked\n", shown(b.out), kind, shown(b.dir), bytesText(b.size), describeManifest(&m))
	return err
}

// describeManifest says what a backup holds.
func describeManifest(m *mmapwal.Manifest) string {
	parts := []string{fmt.Sprintf("Raft ID %d", m.RaftID), "entries " + rangeText(m.First, m.Last)}
	if h := m.HardState; h != nil {
		parts = append(parts, fmt.Sprintf("term %d, vote %d, commit %d", h.Term, h.Vote, h.Commit))
	}
	if m.Snapshot.Index > 0 {
		parts = append(parts, fmt.Sprintf("snapshot at %d of term %d", m.Snapshot.Index, m.Snapshot.Term))
	}
	if m.Encrypted {
		parts = append(parts, "encrypted")
	}
	if m.PlainFiles > 0 {
		parts = append(parts, fmt.Sprintf("but for %d files from before that, for which only checksums vouch", m.PlainFiles))
	}
	return strings.Join(parts, ", ")
}
