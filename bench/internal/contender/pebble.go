package contender

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"
)

// pebbleLog keeps entries as CockroachDB does, in an LSM tree: a synced write is
// one of its write-ahead log.
func pebbleLog() Contender {
	return Contender{Name: "pebble", About: "cockroachdb/pebble, a key for each entry, memtables of 64 MB", Compacts: true, Open: openPebble}
}

type pebbleStore struct {
	db    *pebble.DB
	write *pebble.WriteOptions
	buf   []byte
}

func openPebble(dir string, o Options) (Log, error) {
	db, err := pebble.Open(dir, &pebble.Options{
		Logger:                      silent{},
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
	})
	if err != nil {
		return nil, err
	}
	write := pebble.Sync
	if o.NoSync {
		write = pebble.NoSync
	}
	return &pebbleStore{db: db, write: write}, nil
}

// Append implements Log.
func (p *pebbleStore) Append(es []*raftpb.Entry) error {
	b := p.db.NewBatch()
	for _, e := range es {
		p.buf = encode(p.buf[:0], e)
		if err := b.Set(pebbleKey(e.GetIndex()), p.buf, nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(p.write), b.Close())
}

// Read implements Log.
func (p *pebbleStore) Read(lo, hi uint64, visit func(data []byte)) error {
	it, err := p.db.NewIter(&pebble.IterOptions{LowerBound: pebbleKey(lo), UpperBound: pebbleKey(hi)})
	if err != nil {
		return err
	}
	next := lo
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var data []byte
		if data, err = dataOf(it.Value()); err == nil {
			visit(data)
		}
		next++
	}
	if err == nil && next != hi {
		err = fmt.Errorf("pebble: entries [%d, %d): found those below %d", lo, hi, next)
	}
	return errors.Join(err, it.Error(), it.Close())
}

// Compact implements Compacter.
func (p *pebbleStore) Compact(i uint64) error {
	return p.db.DeleteRange(pebbleKey(0), pebbleKey(i+1), p.write)
}

// Close implements Log.
func (p *pebbleStore) Close() error { return p.db.Close() }

func pebbleKey(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// silent is a logger that says nothing, but for what ends the process.
type silent struct{}

// Infof implements pebble.Logger.
func (silent) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (silent) Errorf(string, ...any) {}

// Fatalf implements pebble.Logger: it must not return.
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
