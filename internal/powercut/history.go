package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

const logDir = "/log"

// Config is what the logs of a history have in common.
type Config struct {
	NoSync bool
	Batch  bool   // BatchSync
	Async  bool   // HardSync, and each Save is a SaveAsync
	Plain  bool   // on a disk without fallocate; see simdisk.FS.Plain
	Retain uint64 // Options.RetainEntries
	// Edit changes the options of every Open; nil: not at all.
	Edit func(o *mmapwal.Options)
}

func (c *Config) options() *mmapwal.Options {
	o := &mmapwal.Options{Logger: slog.New(slog.DiscardHandler), FileDataSize: fileBytes, RetainEntries: c.Retain}
	switch {
	case c.NoSync:
		o.Sync = mmapwal.NoSync
	case c.Batch:
		o.Sync = mmapwal.BatchSync(6, time.Millisecond)
	}
	if c.Edit != nil {
		c.Edit(o)
	}
	return o
}

// Failure is a promise that was broken.
type Failure struct {
	History []Op   // what was done, as far as it matters
	Images  int64  // how many had been checked
	Reason  string // what was found, and what was expected
	Trace   string // what the operations were
}

func (f *Failure) Error() string {
	return fmt.Sprintf("after %d images: %s\nhistory %s:\n%s", f.Images, f.Reason, Format(f.History), f.Trace)
}

// broken is the panic that a failure is inside this package.
type broken struct{ reason string }

func fail(format string, args ...any) { panic(broken{fmt.Sprintf(format, args...)}) }

// caught turns a panic into the reason for a failure: that of fail, and one of
// the engine.
func caught(run func()) (reason string, failed bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case broken:
			reason, failed = r.reason, true
		default:
			reason, failed = fmt.Sprintf("panic: %v\n%s", r, debug.Stack()), true
		}
	}()
	run()
	return "", false
}

// background is what the engine does in the background, done when the history
// wants it, so that it tells all that happens.
type background struct {
	queue  []func()
	atOnce bool // at Close, which may wait for it
}

func (b *background) add(f func()) {
	if b.atOnce {
		f()
		return
	}
	b.queue = append(b.queue, f)
}

// later takes all times for the next turn of the background. It knows how to end none.
func (b *background) later(_ time.Duration, f func()) { b.queue = append(b.queue, f) }

func (b *background) run() {
	queue := b.queue
	b.queue = nil
	for _, f := range queue {
		f()
	}
}

// end is for a log that is going to be closed.
func (b *background) end() {
	b.atOnce = true
	b.run()
}

// open opens the log on a disk; what that begins in the background is done at once, or when
// the background is run. Equal seeds give equal ids and salts.
func (c *Config) open(disk *simdisk.FS, seed uint64, atOnce bool) (*mmapwal.DiskStorage, *background, error) {
	b := &background{atOnce: atOnce}
	var random [32]byte
	binary.BigEndian.PutUint64(random[:], seed)
	d, err := mmapwal.OpenOn(host.Host{FS: disk, Random: rand.NewChaCha8(random), Go: b.add, After: b.later}, logDir, c.options())
	b.atOnce = false
	return d, b, err
}

// history is one that is under way.
type history struct {
	cfg   *Config
	count *counter
	disk  *simdisk.FS
	b     *background
	d     *mmapwal.DiskStorage // nil between two runs of the log
	opens uint64

	m    *oracle.Model // all calls that returned
	want expectation   // what a power cut may leave now
	pos  int           // operations done
	when int           // the background's turn is

	failed   bool   // a sync of the operation
	promised func() // is called when a promise is made; may be nil

	trace []string
}

// newHistory is one on an empty disk, where the log is made.
func newHistory(cfg *Config, data func(i, term uint64) []byte, count *counter) *history {
	m := &oracle.Model{Data: data, Retain: cfg.Retain}
	h := &history{cfg: cfg, count: count, disk: simdisk.New(), m: m, want: exactly(m)}
	if cfg.Plain {
		h.disk.Plain()
	}
	if err := h.disk.MkdirAll(logDir); err != nil {
		panic(err)
	}
	return h
}

func (h *history) tell(format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf(format, args...))
}

func (h *history) failure(ops []Op, reason string) *Failure {
	return &Failure{History: ops, Images: h.count.images.Load(), Reason: reason, Trace: strings.Join(h.trace, "\n")}
}

// stopped: the power is gone, or a sync has failed; nothing else stops a call.
func (h *history) stopped(err error) {
	h.tell("stopped: %v", err)
	if errors.Is(err, syscall.EIO) && h.d != nil && h.d.Sync() == nil {
		fail("a sync has failed, and the log still takes writes")
	}
	if errors.Is(err, mmapwal.ErrCorrupt) || !errors.Is(err, simdisk.ErrCut) && !errors.Is(err, syscall.EIO) {
		fail("error %v", err)
	}
}

// begin opens the log, and finds what is expected. It reports whether that was
// possible.
func (h *history) begin() bool {
	h.opens++
	d, b, err := h.cfg.open(h.disk, h.opens, h.when == atOnce)
	if err != nil {
		h.stopped(err)
		return false
	}
	h.d, h.b = d, b
	m, err := h.want.match(d, h.cfg.NoSync)
	if err != nil {
		fail("%v", err)
	}
	h.m = m
	h.promise(exactly(m))
	return true
}

// abandon leaves the log as the end of the process does.
func (h *history) abandon() {
	if h.d != nil {
		h.disk.CutAt(1)
		h.b.end()
		_ = h.d.Close()
		h.d = nil
	}
}

// kill ends the process, and leaves the kernel's memory as it is.
func (h *history) kill() {
	h.abandon()
	h.disk.Restart()
}

// end gives the memory back.
func (h *history) end() {
	h.abandon()
	h.disk.Free()
}

// arm prepares what an operation is to meet.
func (h *history) arm(op Op) {
	if op.Cut > 0 && op.AtSync {
		h.disk.CutAt(op.Cut, simdisk.OpMsync, simdisk.OpSync, simdisk.OpSyncDir, simdisk.OpRename, simdisk.OpRemove)
	} else if op.Cut > 0 {
		h.disk.CutAt(op.Cut)
	}
	if n := op.Fail; n > 0 {
		h.disk.SetHook(func(op simdisk.Op, _ string) error {
			if isSync(op) {
				if n--; n == 0 {
					h.failed = true
					return syscall.EIO
				}
			}
			return nil
		})
	}
}

func isSync(op simdisk.Op) bool {
	return op == simdisk.OpMsync || op == simdisk.OpSync || op == simdisk.OpSyncDir
}

// do does an operation. It is false if it is none in this state, or has fewer
// syncs than the one that is to fail. When it returns the log is open, or the
// power is gone.
func (h *history) do(op Op) (applies bool) {
	var call oracle.Op
	if op.isCall() {
		if call, applies = op.call(h.m, h.pos); !applies {
			return false
		}
	}
	h.pos, h.failed = h.pos+1, false
	h.schedule(op)
	if h.start(op, &call) && h.when != later {
		h.b.run()
	}
	h.disk.SetHook(nil)
	if h.failed {
		h.afterFailedSync()
	}
	return op.Fail == 0 || h.failed
}

// The times at which what an operation begins in the background is done.
const (
	atOnce = iota
	atReturn
	later // with the next operation
)

// schedule decides when the background's turn is.
func (h *history) schedule(op Op) {
	h.when = int(op.Seed % 3)
	if op.Seed == 0 {
		h.when = h.pos % 2
	}
	if h.b != nil {
		h.b.atOnce = h.when == atOnce
	}
}

// start does an operation up to its return, and reports whether the log goes on.
func (h *history) start(op Op, call *oracle.Op) bool {
	if op.Kind == Kill {
		h.tell("kill")
		h.kill()
		h.arm(op)
		return h.begin()
	}
	h.arm(op)
	switch op.Kind {
	case Close:
		h.tell("close")
		return h.close()
	case Sync:
		h.tell("sync")
		return h.returned(h.d.Sync())
	}
	return h.call(call)
}

// isCall: it is a call that changes what the log holds.
func (o Op) isCall() bool { return o.Kind != Kill && o.Kind != Close && o.Kind != Sync }

// returned: Sync or Close made all durable, if it returned nil.
func (h *history) returned(err error) bool {
	if err != nil {
		h.stopped(err)
		return false
	}
	h.promise(exactly(h.m))
	return true
}

// promise narrows what a power cut may leave.
func (h *history) promise(want expectation) {
	h.want = want
	if h.promised != nil {
		h.promised()
	}
}

func (h *history) close() bool {
	d := h.d
	h.b.end()
	h.d = nil
	return h.returned(d.Close()) && h.begin()
}

// call makes a call of the log.
func (h *history) call(op *oracle.Op) bool {
	h.tell("%s on %d to %d, hard %v, snapshot %v, cleared below %d", brief(op), h.m.Base[0]+1, h.m.Last(), h.m.Hard, h.m.Snap, h.m.Cleared)
	outcomes := op.Outcomes(h.m)
	before, after := h.want, outcomes[len(outcomes)-1]
	h.want = before.begun(op, outcomes)
	acknowledged, err := h.save(op, after)
	if err != nil {
		h.stopped(err)
		return false
	}
	want := before.done(op, h.m, after, h.want, h.cfg.NoSync || h.cfg.Batch || h.cfg.Async)
	if promised := h.m.Hard[0] != after.Hard[0] || h.m.Hard[1] != after.Hard[1]; promised && !h.cfg.NoSync {
		want = exactly(after)
	}
	h.promise(want)
	h.m = after
	if got, err := oracle.HardState(h.d); err != nil || got != after.Hard {
		fail("the log says the hard state %v, %v; %v was saved", got, err, after.Hard)
	}
	if acknowledged {
		h.acknowledge(after)
	}
	return true
}

// save makes the call. It reports whether the log has said by then that it is durable.
func (h *history) save(op *oracle.Op, after *oracle.Model) (acknowledged bool, err error) {
	if !h.cfg.Async || !op.IsSave() {
		return false, op.Do(h.d, h.m)
	}
	hard, es, snap := op.Save(h.m)
	called, returned := false, false
	h.d.SaveAsync(hard, es, snap, func(e error) {
		if called {
			fail("a done function is called twice")
		}
		called = true
		switch {
		case e != nil:
			err = e
		case returned:
			h.acknowledge(after)
		default:
			acknowledged = true
		}
	})
	for !called && len(h.b.queue) > 0 && (h.failed || h.disk.IsCut()) {
		h.b.run() // what has become of it
	}
	returned = true
	return acknowledged, err
}

// acknowledge notes that the Save that led to the model is durable, and all before it.
func (h *history) acknowledge(after *oracle.Model) {
	if k := slices.Index(h.want.models, after); k > 0 {
		h.promise(expectation{h.want.models[k:], h.want.noted})
	}
}

// brief describes a call.
func brief(op *oracle.Op) string {
	switch {
	case op.Create > 0:
		return fmt.Sprintf("CreateSnapshot %d", op.Create)
	case op.Compact > 0:
		return fmt.Sprintf("Compact %d", op.Compact)
	case op.Truncate > 0:
		return fmt.Sprintf("TruncateEntriesUntil %d", op.Truncate)
	case op.Checkpoint > 0:
		return fmt.Sprintf("SetUint %d", op.Checkpoint)
	}
	return fmt.Sprintf("Save hard %v, entries from %d of terms %v, snapshot %v", op.Hard, op.From, op.Terms, op.Snap)
}

// afterFailedSync: a log whose sync has failed takes no more writes. Then the
// process dies, and the log is opened on what the kernel has in its memory.
func (h *history) afterFailedSync() {
	h.tell("killed after the failed sync")
	h.kill()
	h.mustBegin()
}

// mustBegin opens the log where nothing is in the way.
func (h *history) mustBegin() {
	if !h.begin() {
		fail("the log does not open")
	}
}
