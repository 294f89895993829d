// Package suite measures contenders side by side: in each round every one of
// them, in random order, and compares each with the floor of the same round.
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
	Entries     int           // to which logs grow
	ReadEntries int           // in a log that is read
	Seed        uint64        // of orders and contents

	Contenders []contender.Contender
	Workloads  []Workload
	Growth     bool

	Log      io.Writer      // is told the order of each round
	Progress func(done int) // is told how many measurements are done
}

// Steps returns how many measurements there are.
func (c *Config) Steps() int {
	n := 0
	for _, w := range c.Workloads {
		n += len(c.running(w))
	}
	if c.Growth {
		n += len(c.growing())
	}
	return n * c.Rounds
}

// running returns the contenders that can do w.
func (c *Config) running(w Workload) []contender.Contender {
	return slices.DeleteFunc(slices.Clone(c.Contenders), func(x contender.Contender) bool { return w.Reads && x.WriteOnly })
}

// growing returns the contenders that keep what they store.
func (c *Config) growing() []contender.Contender {
	return slices.DeleteFunc(slices.Clone(c.Contenders), func(x contender.Contender) bool { return x.Name == contender.Floor })
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
	growths map[string][][]grown    // of a contender, one of each round
}

// Run measures everything. What it made in cfg.Dir is removed when it returns.
func Run(ctx context.Context, cfg *Config) (_ *Results, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "raftwal-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rng := rand.New(rand.NewPCG(cfg.Seed, 0))
	r := &runner{
		cfg: cfg, dir: dir, rng: rng, source: newSource(rng),
		samples: map[[2]string][]*sample{}, growths: map[string][][]grown{},
	}
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

// round measures every workload with every contender once.
func (r *runner) round(ctx context.Context, round int) error {
	for _, w := range r.cfg.Workloads {
		err := r.inRandomOrder(ctx, round, w.Name, r.cfg.running(w), func(c contender.Contender, dir string) error {
			s, err := r.measure(w, c, dir)
			key := [2]string{w.Name, c.Name}
			r.samples[key] = append(r.samples[key], s)
			return err
		})
		if err != nil {
			return err
		}
	}
	if !r.cfg.Growth {
		return nil
	}
	return r.inRandomOrder(ctx, round, Growth, r.cfg.growing(), func(c contender.Contender, dir string) error {
		g, err := r.grow(c, dir)
		r.growths[c.Name] = append(r.growths[c.Name], g)
		return err
	})
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

// measure opens a log of c and measures w.
func (r *runner) measure(w Workload, c contender.Contender, dir string) (*sample, error) {
	r.source.restart()
	l, err := c.Open(dir, contender.Options{NoSync: w.NoSync})
	if err != nil {
		return nil, err
	}
	measure := r.measureSaves
	if w.Reads {
		measure = r.measureReads
	}
	s, err := measure(w, l)
	return s, errors.Join(err, l.Close())
}
