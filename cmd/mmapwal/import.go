package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/etcd"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/spf13/cobra"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

func newImport() *cobra.Command {
	var from, keyFile, newKeyFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import --from dgraph|etcd SRC DST",
		Short: "Make a log from one of Dgraph or etcd",
		Long: `import reads SRC, the log of a Dgraph or of an etcd member that is not running, and
makes the log DST from it. SRC is opened for reading only. DST must not exist, or
be an empty directory. The log is written beside it under a temporary name
(.DST.import-*), opened again, compared with SRC entry by entry, and only then
given its name: an import that fails or is interrupted leaves no DST. One that is
killed leaves the temporary directory, which may be deleted. With --new-key-file
the new log is encrypted with the key in that file.

From Dgraph, SRC is its raftwal directory ("w"):

  - Raft ID, group ID, checkpoint, hard state and snapshot are taken as they are.
    A commit index outside of the log is put between the snapshot and the last
    entry, where raft wants it; the summary says so. One beyond the last entry
    means that entries are missing at the end.
  - Entries at or below the snapshot are left out, whatever they are like.
  - The entries behind it must be there one after another from the snapshot on,
    with terms that are at least 1, at least the snapshot's, and do not fall. If
    one is missing, or a slot or length points out of its file or into another
    entry, nothing is written, and the error names file, offset and slot.
  - Slots in use behind an empty one are damage: Dgraph leaves none.
  - Dgraph stores no checksums: changed bytes in the data of an entry cannot be
    noticed.
  - With --key-file entries that Dgraph encrypted are decrypted; the file holds the
    key of Dgraph's --encryption key-file=..., of 16, 24 or 32 bytes. KEYREGISTRY
    must be in SRC: if it is lost, or was made anew since, nobody can read the
    entries. Then import the log of another replica.
  - A log of this program that Dgraph wrote to, or that lacks files because Dgraph has
    opened it, is imported, too.

From etcd, SRC is its data directory, that of the member in it, which has wal and
snap in it, or the wal directory, with snap beside it:

  - The Raft ID is the member's ID, the group ID that of the cluster.
  - The snapshot is the last one that the WAL names as committed. Its data is that
    of the file in snap, as it is; etcd's keys and values are in its database,
    which is not imported. If the file is not there, an older snapshot whose file is
    there is taken, or the log from its first entry on, as etcd does; if neither
    leads up to the end, conf state, index and term of the newest come from the WAL,
    and it has no data. The summary says so.
  - Entries at or below the snapshot, and those that later ones replaced, are left
    out. Those behind it must be there without a gap, and so must the one that the
    commit index names.
  - Every checksum is compared, in every file that is there. Damage is refused, and
    the error names file and offset. A torn write at the end of the last file, as
    etcd knows it, is dropped; the summary says where. A zeroed sector in it looks
    like one, and is dropped with all behind it.
  - etcd's checksums leave out the types of its records. A changed type is noticed
    only if something contradicts it.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := conversion{src: args[0], dst: args[1], verb: "import", errs: cmd.ErrOrStderr()}
			var err error
			if c.srcKey, err = readKeyIf(keyFile); err != nil {
				return err
			}
			if c.dstKey, err = readKeyIf(newKeyFile); err != nil {
				return err
			}
			open, err := c.opener(from)
			if err != nil {
				return err
			}
			if err := c.checkPlaces(); err != nil {
				return err
			}
			s, err := c.importLog(cmd.Context(), open)
			if err != nil {
				return failed(err)
			}
			return failed(s.print(cmd.OutOrStdout(), asJSON))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "what wrote SRC: dgraph or etcd")
	flags.StringVar(&keyFile, "key-file", "", "file with Dgraph's encryption key (default: SRC is not encrypted)")
	flags.StringVar(&newKeyFile, "new-key-file", "", "file with the master key of DST (default: DST is not encrypted)")
	flags.BoolVar(&asJSON, "json", false, "print the summary as JSON")
	// These fail for a flag that does not exist only.
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"dgraph", "etcd"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// readKeyIf reads a master key, unless name is empty.
func readKeyIf(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	return readKey(name)
}

// conversion makes the log dst from the log src, in another format.
type conversion struct {
	src, dst       string
	srcKey, dstKey []byte // nil: none
	verb           string
	errs           io.Writer

	step func(done int) // for tests: called after each entry, nil otherwise
}

// checkPlaces says whether dst may be made. It follows a symbolic link.
func (c *conversion) checkPlaces() error {
	if target, err := filepath.EvalSymlinks(c.dst); err == nil {
		c.dst = target
	}
	names, err := os.ReadDir(c.dst)
	if err == nil && len(names) > 0 {
		return fmt.Errorf("%s is not empty; it holds %s: choose another name", c.dst, shown(names[0].Name()))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.dst, err = filepath.Abs(c.dst); err != nil {
		return err
	}
	parent := filepath.Dir(c.dst)
	if info, err := os.Stat(parent); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", parent)
	}
	return c.checkOutside(parent)
}

// checkOutside: nothing is written into src, not even under a temporary name.
func (c *conversion) checkOutside(dir string) error {
	src, err := os.Stat(c.src)
	if err != nil {
		return nil // opening it says so
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	for {
		if info, err := os.Stat(dir); err == nil && os.SameFile(info, src) {
			return fmt.Errorf("%s is inside of %s, which is only read: choose another place", c.dst, c.src)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil
		}
		dir = up
	}
}

// source is a log that is imported.
type source struct {
	*transfer.Contents

	commit         uint64 // as it is stored
	leftOut        int    // entries that the snapshot covers
	files          int
	encryptedFiles int
	notes          []string // what else to say of it
}

// opener returns what opens src, which that program wrote.
func (c *conversion) opener(from string) (open func() (*source, error), err error) {
	switch {
	case from == "dgraph":
		return c.openDgraph, nil
	case from == "etcd" && c.srcKey != nil:
		return nil, errors.New("etcd does not encrypt: leave out --key-file; --new-key-file encrypts DST")
	case from == "etcd":
		return c.openEtcd, nil
	}
	return nil, fmt.Errorf("--from %q: there are dgraph and etcd", from)
}

func (c *conversion) openDgraph() (*source, error) {
	l, err := dgraph.Open(c.src, c.srcKey)
	if errors.Is(err, dgraph.ErrKeyRequired) {
		err = fmt.Errorf("%w with --key-file", err)
	}
	if err != nil {
		return nil, err
	}
	return &source{Contents: &l.Contents, commit: l.Commit, leftOut: l.LeftOut, files: l.Files, encryptedFiles: l.EncryptedFiles}, nil
}

func (c *conversion) openEtcd() (*source, error) {
	l, err := etcd.Open(c.src)
	if err != nil {
		return nil, err
	}
	s := &source{Contents: &l.Contents, commit: l.HardState.GetCommit(), leftOut: l.LeftOut, files: l.Files}
	note := func(format string, args ...any) { s.notes = append(s.notes, fmt.Sprintf(format, args...)) }
	if l.Replaced > 0 {
		note("left out %d entries that later ones replaced", l.Replaced)
	}
	if l.Torn.File != "" {
		note("dropped a torn write of %d bytes: %s, offset %d", l.Torn.Bytes, l.Torn.File, l.Torn.Offset)
	}
	switch {
	case l.Older && l.Snapshot.GetMetadata().GetIndex() == 0:
		note("begins with the first entry: there is no file %s with the newest snapshot", l.MissingSnap)
	case l.Older:
		note("begins with an older snapshot: there is no file %s with the newest one", l.MissingSnap)
	case l.MissingSnap != "":
		note("the snapshot has no data: there is no file %s", l.MissingSnap)
	}
	return s, nil
}

// importLog makes dst from the log that open opens.
func (c *conversion) importLog(ctx context.Context, open func() (*source, error)) (*summary, error) {
	src, err := open()
	if err != nil {
		return nil, err
	}
	m := c.newMeter(src.Contents)
	defer m.close()
	err = c.beside(func(tmp string) error {
		if err := c.writeLog(ctx, tmp, src.Contents, m.wrote); err != nil {
			return err
		}
		again, err := open()
		if err != nil {
			return err
		}
		return c.checkLog(ctx, tmp, again.Contents, m.compared)
	})
	if err != nil {
		return nil, err
	}
	s := c.summarize(src.Contents)
	s.LeftOut, s.StoredCommit, s.Files, s.EncryptedFiles = src.leftOut, src.commit, src.files, src.encryptedFiles
	s.Encrypted, s.Notes = c.dstKey != nil, src.notes
	return s, nil
}

// beside calls write with a new directory beside dst, which then becomes dst.
// After an error it is gone.
func (c *conversion) beside(write func(tmp string) error) (err error) {
	parent, base := filepath.Split(c.dst)
	tmp, err := os.MkdirTemp(parent, "."+base+"."+c.verb+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	// In contrast to os.Rename this replaces an empty directory, and no other.
	if err := unix.Rename(tmp, c.dst); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: c.dst, Err: err}
	}
	if err := vfs.OS().SyncDir(parent); err != nil {
		return fmt.Errorf("%s is complete, but a power cut may take its name: %w", c.dst, err)
	}
	return nil
}

// writeLog writes what src holds into a new log in dir.
func (c *conversion) writeLog(ctx context.Context, dir string, src *transfer.Contents, progress func(int)) (err error) {
	// Close makes all of it durable, so single Saves need not.
	wal, err := mmapwal.Open(dir, &mmapwal.Options{Sync: mmapwal.NoSync, Key: c.dstKey, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wal.Close()) }()
	for info, v := range map[mmapwal.MetaInfo]uint64{
		mmapwal.RaftId: src.RaftID, mmapwal.GroupId: src.GroupID, mmapwal.CheckpointIndex: src.Checkpoint,
	} {
		if err := wal.SetUint(info, v); err != nil {
			return err
		}
	}
	if err := wal.Save(nil, nil, src.Snapshot); err != nil {
		return err
	}
	if err := c.saveEntries(ctx, wal, src, progress); err != nil {
		return err
	}
	return wal.Save(src.HardState, nil, nil)
}

// saveEntries saves the entries, many at a time.
func (c *conversion) saveEntries(ctx context.Context, wal *mmapwal.DiskStorage, src *transfer.Contents, progress func(int)) error {
	const batchBytes, batchEntries = 4 << 20, 4096
	var batch []*raftpb.Entry
	bytes, done := 0, 0
	save := func() error {
		err := wal.Save(nil, batch, nil)
		batch, bytes = nil, 0
		return err
	}
	for e, err := range src.Entries {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		batch, bytes = append(batch, e), bytes+len(e.GetData())
		if bytes >= batchBytes || len(batch) == batchEntries {
			if err := save(); err != nil {
				return err
			}
		}
		done++
		progress(done)
	}
	return save()
}

// checkLog opens the log in dir as a user would, and compares it with src, which
// was opened anew.
func (c *conversion) checkLog(ctx context.Context, dir string, src *transfer.Contents, progress func(int)) (err error) {
	wal, err := openSource(dir, c.dstKey)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wal.Close()) }()
	written, err := contentsOf(wal)
	if err != nil {
		return err
	}
	return c.compare(ctx, src, written, progress)
}

// compare compares what was read with what was written.
func (c *conversion) compare(ctx context.Context, src, written *transfer.Contents, progress func(int)) error {
	stoppable := *src
	stoppable.Entries = func(yield func(*raftpb.Entry, error) bool) {
		for e, err := range src.Entries {
			if err == nil {
				err = ctx.Err()
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
	err := transfer.Compare(&stoppable, written, progress)
	if errors.Is(err, transfer.ErrDiffers) {
		return fmt.Errorf("what was written is not what %s holds now: %w: is something writing to it? Stop it first", c.src, err)
	}
	return err
}

// openSource opens a log of this program for reading only.
func openSource(dir string, key []byte) (*mmapwal.DiskStorage, error) {
	return mmapwal.Open(dir, &mmapwal.Options{ReadOnly: true, Key: key, Logger: slog.New(slog.DiscardHandler)})
}

// contentsOf returns what an open log holds behind its snapshot.
func contentsOf(wal *mmapwal.DiskStorage) (*transfer.Contents, error) {
	hard, err := wal.HardState()
	if err != nil {
		return nil, err
	}
	snap, err := wal.Snapshot()
	if err != nil {
		return nil, err
	}
	last, err := wal.LastIndex()
	if err != nil {
		return nil, err
	}
	c := &transfer.Contents{
		RaftID: wal.Uint(mmapwal.RaftId), GroupID: wal.Uint(mmapwal.GroupId), Checkpoint: wal.Uint(mmapwal.CheckpointIndex),
		HardState: hard, Snapshot: snap,
		First: snap.GetMetadata().GetIndex() + 1, Last: last,
	}
	c.Entries = func(yield func(*raftpb.Entry, error) bool) { yieldEntries(wal, c.First, c.Last, yield) }
	return c, nil
}

// yieldEntries yields the entries from first to last.
func yieldEntries(wal *mmapwal.DiskStorage, first, last uint64, yield func(*raftpb.Entry, error) bool) {
	for next := first; next <= last; {
		es, err := wal.Entries(next, last+1, 4<<20)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, e := range es {
			if !yield(e, nil) {
				return
			}
		}
		next += uint64(len(es))
	}
}

// meter shows on a terminal how far a conversion is, once that takes longer than
// a second. Each entry counts twice: written, and compared.
type meter struct {
	c       *conversion
	entries int
	started time.Time
	screen  *screen // nil until then
}

func (c *conversion) newMeter(src *transfer.Contents) *meter {
	return &meter{c: c, entries: src.Count(), started: time.Now()}
}

func (m *meter) wrote(n int)    { m.show(n) }
func (m *meter) compared(n int) { m.show(m.entries + n) }

func (m *meter) show(done int) {
	if m.c.step != nil {
		m.c.step(done)
	}
	const patience = time.Second
	if m.screen == nil {
		if time.Since(m.started) < patience {
			return
		}
		m.screen = newScreen(io.Discard, m.c.errs, 2*m.entries)
	}
	m.screen.progress(done)
}

func (m *meter) close() {
	if m.screen != nil {
		m.screen.close()
	}
}

// summary is what a conversion prints.
type summary struct {
	Source         string `json:"source"`
	Destination    string `json:"destination"`
	RaftID         uint64 `json:"raft_id"`
	GroupID        uint64 `json:"group_id"`
	Checkpoint     uint64 `json:"checkpoint"`
	Term           uint64 `json:"term"`
	Vote           uint64 `json:"vote"`
	Commit         uint64 `json:"commit"`
	StoredCommit   uint64 `json:"commit_in_source"`
	SnapshotIndex  uint64 `json:"snapshot_index"`
	SnapshotTerm   uint64 `json:"snapshot_term"`
	SnapshotBytes  int    `json:"snapshot_bytes"`
	FirstIndex     uint64 `json:"first_index"`
	LastIndex      uint64 `json:"last_index"`
	Entries        int    `json:"entries"`
	LeftOut        int    `json:"entries_left_out"`
	Files          int    `json:"files_in_source"`
	EncryptedFiles int    `json:"encrypted_files_in_source"`
	Encrypted      bool   `json:"encrypted"`

	Notes []string `json:"notes,omitempty"`

	verb string
}

func (c *conversion) summarize(src *transfer.Contents) *summary {
	return &summary{
		Source: c.src, Destination: c.dst, verb: c.verb,
		RaftID: src.RaftID, GroupID: src.GroupID, Checkpoint: src.Checkpoint,
		Term: src.HardState.GetTerm(), Vote: src.HardState.GetVote(),
		Commit: src.HardState.GetCommit(), StoredCommit: src.HardState.GetCommit(),
		SnapshotIndex: src.Snapshot.GetMetadata().GetIndex(), SnapshotTerm: src.Snapshot.GetMetadata().GetTerm(),
		SnapshotBytes: len(src.Snapshot.GetData()),
		FirstIndex:    src.First, LastIndex: src.Last, Entries: src.Count(),
	}
}

// print writes the summary as a table, or as JSON.
func (s *summary) print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, name+"\t"+format+"\n", args...) // Flush returns the error
	}
	row("source", "%s (%d entry files, %d of them encrypted)", s.Source, s.Files, s.EncryptedFiles)
	row(s.verb+"ed to", "%s (%s)", s.Destination, map[bool]string{true: "encrypted", false: "not encrypted"}[s.Encrypted])
	row("Raft ID, group ID", "%d, %d", s.RaftID, s.GroupID)
	row("checkpoint", "%d", s.Checkpoint)
	row("hard state", "term %d, vote %d, commit %d", s.Term, s.Vote, s.Commit)
	if s.Commit != s.StoredCommit {
		row("", "the source has commit %d, which is not between the snapshot and the last entry", s.StoredCommit)
	}
	if s.SnapshotIndex == 0 {
		row("snapshot", "none")
	} else {
		row("snapshot", "index %d, term %d, %d bytes of data", s.SnapshotIndex, s.SnapshotTerm, s.SnapshotBytes)
	}
	if s.Entries == 0 {
		row("entries", "none")
	} else {
		row("entries", "%d (%d to %d), all compared", s.Entries, s.FirstIndex, s.LastIndex)
	}
	row("left out", "%d entries that the snapshot covers", s.LeftOut)
	for _, note := range s.Notes {
		row("note", "%s", note)
	}
	return t.Flush()
}
