// Package suite measures contenders side by side: in each round every one of
// them, in random order, and compares each with the reference of the same round.
package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/device"
	"golang.org/x/sys/unix"
)

// Config says what is measured and for how long.
type Config struct {
	Dir         string        // where logs are made
	Rounds      int           // each measures every contender once
	Time        time.Duration // of one measurement
	Entries     int           // with which logs are opened again, and compacted
	Grow        int           // entries to which logs grow
	ReadEntries int           // of 1 KB, in a log that is read
	IdleLogs    int           // that one process has open
	FileBytes   int64         // of records in a file of our log; 0: the default
	Seed        uint64        // of orders and contents

	Contenders []contender.Contender
	Workloads  []Workload
	Studies    []string // names of those to be done

	Log      io.Writer      // is told the order of each round
	Progress func(done int) // is told how many measurements are done
}

// Steps returns how many measurements there are.
func (c *Config) Steps() int {
	n := 0
	for _, w := range c.Workloads {
		n += len(c.running(w))
	}
	for _, s := range c.studies() {
		n += len(c.studied(s))
	}
	return n * c.Rounds
}

// running returns the contenders that can do w.
func (c *Config) running(w Workload) []contender.Contender {
	return slices.DeleteFunc(slices.Clone(c.Contenders), func(x contender.Contender) bool { return !w.suits(x) })
}

// runner is a run under way.
type runner struct {
	cfg    *Config
	dir    string
	rng    *rand.Rand
	source *source
	device *device.Device // nil: none
	done   int

	samples map[[2]string][]*sample // of workload and contender, one of each round

	// What studies found, of a contender, one of each round.
	growths     map[string][][]grown
	reopens     map[string][][]reopened
	compactions map[string][]compacted
	idles       map[string][][]idled
}

func newRunner(cfg *Config, dir string) *runner {
	rng := rand.New(rand.NewPCG(cfg.Seed, 0))
	return &runner{
		cfg: cfg, dir: dir, rng: rng, source: newSource(rng),
		samples: map[[2]string][]*sample{}, growths: map[string][][]grown{}, reopens: map[string][][]reopened{},
		compactions: map[string][]compacted{}, idles: map[string][][]idled{},
	}
}

// Run measures everything. What it made in cfg.Dir is removed when it returns.
func Run(ctx context.Context, cfg *Config) (_ *Results, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "raftwal-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := newRunner(cfg, dir)
	machine, err := r.inspect()
	if err != nil {
		return nil, err
	}
	for round := range cfg.Rounds {
		if err := r.round(ctx, round+1); err != nil {
			return nil, err
		}
	}
	machine.LoadAfter = load()
	return r.results(machine), nil
}

// inspect finds out about the machine, and the device among it.
func (r *runner) inspect() (Machine, error) {
	m := machine(r.dir)
	d, err := device.Of(r.dir)
	if errors.Is(err, device.ErrNoCounters) {
		m.DeviceError = err.Error()
		return m, nil
	}
	if err == nil {
		r.device, m.Device = d, d.Name
	}
	return m, err
}

// round does every workload and every study with every contender once.
func (r *runner) round(ctx context.Context, round int) error {
	for _, w := range r.cfg.Workloads {
		err := r.inRandomOrder(ctx, round, w.Name, r.cfg.running(w), func(c contender.Contender, dir string) error {
			until := r.limits(w)
			if w.NoSync && w.Saves() {
				var err error
				if until.bytes, err = r.rehearse(w, c, dir, until); err != nil {
					return err
				}
			}
			s, err := r.measure(w, c, dir, until)
			key := [2]string{w.Name, c.Name}
			r.samples[key] = append(r.samples[key], s)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, s := range r.cfg.studies() {
		err := r.inRandomOrder(ctx, round, s.name, r.cfg.studied(s), func(c contender.Contender, dir string) error {
			return s.measure(r, c, dir)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inRandomOrder calls measure for every contender, each with an empty directory
// on a file system that has nothing left to write.
func (r *runner) inRandomOrder(ctx context.Context, round int, name string, cs []contender.Contender, measure func(contender.Contender, string) error) error {
	r.rng.Shuffle(len(cs), func(i, j int) { cs[i], cs[j] = cs[j], cs[i] })
	r.logOrder(round, name, cs)
	for _, c := range cs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.prepared(func(dir string) error { return measure(c, dir) }); err != nil {
			return fmt.Errorf("%s, %s: %w", name, c.Name, err)
		}
		r.done++
		r.cfg.Progress(r.done)
	}
	return nil
}

func (r *runner) logOrder(round int, name string, cs []contender.Contender) {
	names := make([]string, len(cs))
	for k, c := range cs {
		names[k] = c.Name
	}
	_, _ = fmt.Fprintf(r.cfg.Log, "round %d, %s: %s\n", round, name, strings.Join(names, ", "))
}

// prepared calls do with an empty directory, and removes it.
func (r *runner) prepared(do func(dir string) error) error {
	dir := filepath.Join(r.dir, "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	runtime.GC()
	err := syncFileSystem(r.dir)
	if err == nil {
		err = do(dir)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// syncFileSystem writes what the file system of dir has not written yet.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// rehearse measures w for nothing and removes what that left. The page cache has then what
// memory w takes: a virtual machine's host may take its time, far longer than the logs, to
// provide memory that was not in use for a while. It goes on for longer, and returns how
// many bytes it saved: more of them should not be measured.
func (r *runner) rehearse(w Workload, c contender.Contender, dir string, until limits) (bytes int, err error) {
	dir = filepath.Join(dir, "rehearsal")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	until.time *= rehearsalTimes
	s, err := r.measure(w, c, dir, until)
	if err == nil {
		bytes = s.calls * w.Bytes()
	}
	runtime.GC()
	return bytes, errors.Join(err, os.RemoveAll(dir))
}

// measure opens a log of c and measures w until the limits.
func (r *runner) measure(w Workload, c contender.Contender, dir string, until limits) (s *sample, err error) {
	r.source.restart()
	o := contender.Options{NoSync: w.NoSync, Batch: w.Batch, Reuse: w.Reused, FileBytes: r.cfg.FileBytes}
	l, err := c.Open(dir, o)
	if err != nil {
		return nil, err
	}
	measure := r.measureSaves
	if !w.Saves() {
		measure = r.measureReads
		l, err = r.filled(w, c, l, func() (contender.Log, error) { return c.Open(dir, o) })
	}
	if err == nil {
		s, err = measure(w, l, until)
	}
	if l != nil {
		err = errors.Join(err, l.Close())
	}
	return s, err
}

// filled fills l and opens it anew, unless the newest entries are to be read: no log
// has an entry in memory then because it was saved just now. It returns the log that
// is open; nil if none is.
func (r *runner) filled(w Workload, c contender.Contender, l contender.Log, reopen func() (contender.Log, error)) (contender.Log, error) {
	if _, err := r.fill(l, r.readEntries(w), w.Size); err != nil {
		return l, err
	}
	if w.Recent || c.Name == contender.Reference {
		return l, nil
	}
	if err := l.Close(); err != nil {
		return nil, err
	}
	return reopen()
}
