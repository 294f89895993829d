package mmapwal

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// TestErrorsSayThingsOnce: the package's name stands at the begin, and only there; what is
// wrapped can still be found.
func TestErrorsSayThingsOnce(t *testing.T) {
	quiet := &Options{Logger: slog.New(slog.DiscardHandler)}
	dir := t.TempDir()
	d, err := Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, locked := Open(dir, quiet)
	_, key := Open(t.TempDir(), &Options{Key: make([]byte, 5)})
	_, none := Open(dir+"/none", &Options{ReadOnly: true})
	for name, test := range map[string]struct{ err, is error }{
		"locked":      {locked, ErrLocked},
		"key":         {key, ErrKeyLength},
		"no log":      {none, fs.ErrNotExist},
		"invalid":     {d.Save(nil, []*raftpb.Entry{{Index: new(uint64(9)), Term: new(uint64(1))}}, nil), ErrInvalid},
		"out of date": {d.CreateSnapshot(0, nil, nil), raft.ErrSnapOutOfDate},
	} {
		if !errors.Is(test.err, test.is) {
			t.Errorf("%s: %v", name, test.err)
			continue
		}
		if text := test.err.Error(); !strings.HasPrefix(text, prefix) || strings.Count(text, prefix) != 1 {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// TestOutOfDateSaysIndexes of the snapshot that came, and of the one that is there.
func TestOutOfDateSaysIndexes(t *testing.T) {
	err := outOfDate(20, 50)
	if !strings.Contains(err.Error(), "at 20") || !strings.Contains(err.Error(), "at 50") || !errors.Is(err, raft.ErrSnapOutOfDate) {
		t.Error(err)
	}
}
