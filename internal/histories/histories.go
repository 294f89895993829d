package histories

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// Random runs the history of a seed. dirs returns a new directory of the real file system,
// for what needs one. The error is a *Failure.
func Random(seed uint64, all bool, dirs func() string) (Count, error) {
	g := NewGenerator(seed, all)
	p := Program{Open: g.Settings(), Plain: g.r.IntN(8) == 0}
	n := g.Length()
	return run(&p, dirs, func(s *State) (Call, bool) {
		if len(p.Calls) == n {
			return Call{}, false
		}
		return g.Next(s), true
	})
}

// Run runs a history. Calls that are not legal where they stand are fitted, or left out.
// The error is a *Failure.
func Run(p Program, dirs func() string) (Count, error) {
	done, k := Program{Open: p.Open, Plain: p.Plain}, 0
	return run(&done, dirs, func(s *State) (Call, bool) {
		for ; k < len(p.Calls); k++ {
			if c, ok := p.Calls[k].fit(s); ok {
				k++
				return c, true
			}
		}
		return Call{}, false
	})
}

// run runs the calls that next returns, and notes them in p.
func run(p *Program, dirs func() string, next func(s *State) (Call, bool)) (count Count, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		if err != nil {
			err = &Failure{*p, err.Error()}
		}
	}()
	m, err := newMachine(p, dirs)
	if err != nil {
		return Count{}, err
	}
	for {
		c, more := next(m.state)
		if !more {
			m.end()
			return m.count, nil
		}
		p.Calls = append(p.Calls, c)
		if err := m.do(&c); err != nil {
			return m.count, err
		}
	}
}

// Shrink looks for a shorter history that fails, too, until the given time.
func Shrink(f *Failure, dirs func() string, until time.Time) *Failure {
	try := func(p Program) bool {
		if time.Now().After(until) {
			return false
		}
		_, err := Run(p, dirs)
		var failure *Failure
		if !errors.As(err, &failure) {
			return false
		}
		f = failure
		return true
	}
	for size := max(len(f.Program.Calls)/2, 1); ; size = max(size/2, 1) {
		shorter := false
		for at := 0; at < len(f.Program.Calls); {
			calls := f.Program.Calls
			if try(f.with(slices.Delete(slices.Clone(calls), at, min(at+size, len(calls))))) {
				shorter = true
			} else {
				at += size
			}
		}
		if size == 1 && !shorter {
			break
		}
	}
	for k := 0; k+1 < len(f.Program.Calls); {
		joined, ok := join(f.Program.Calls[k], f.Program.Calls[k+1])
		calls := slices.Delete(slices.Clone(f.Program.Calls), k, k+1)
		if ok {
			calls[k] = joined
		}
		if !ok || !try(f.with(calls)) {
			k++
		}
	}
	for _, simpler := range simplifications {
		for k := 0; k < len(f.Program.Calls); k++ {
			p := f.with(slices.Clone(f.Program.Calls))
			simpler(&p.Calls[k])
			try(p)
		}
	}
	simple := f.Program
	simple.Open = Settings{FileBytes: 4 * minFileBytes}
	try(simple)
	simple = f.Program
	simple.Plain = false
	try(simple)
	return f
}

// with returns the program of f with other calls.
func (f *Failure) with(calls []Call) Program {
	p := f.Program
	p.Calls = calls
	return p
}

// join makes one Save of two.
func join(a, b Call) (Call, bool) {
	if a.Kind != Save || b.Kind != Save || a.begins() || b.Snap != (Position{}) || len(b.Entries) == 0 || a.From+uint64(len(a.Entries)) != b.From {
		return a, false
	}
	if b.Snap, b.SnapBytes, b.From = a.Snap, a.SnapBytes, a.From; b.Hard == (Hard{}) {
		b.Hard = a.Hard
	}
	b.Entries = slices.Concat(a.Entries, b.Entries)
	return b, true
}

// simplifications are tried on each call of a history.
var simplifications = []func(c *Call){
	func(c *Call) { c.Look = 0 },
	func(c *Call) { c.Look &= LookKill },
	func(c *Call) { c.Look &= LookCut },
	func(c *Call) { c.Step = 0 },
	func(c *Call) { c.OpenStep = 0 },
	func(c *Call) { c.Fail = NoFailure },
	func(c *Call) { c.Turn = AtReturn },
	func(c *Call) { c.Open = Settings{FileBytes: 4 * minFileBytes} },
	func(c *Call) { c.Hard = Hard{} },
	func(c *Call) { c.Entries = c.Entries[:min(len(c.Entries), 1)] },
	func(c *Call) { c.resize(func(int) int { return 3 * minFileBytes }) },
	func(c *Call) { c.resize(func(size int) int { return min(size, 10) }) },
	func(c *Call) { c.SnapBytes = 0 },
}

// resize changes the size of the entries.
func (c *Call) resize(to func(size int) int) {
	c.Entries = slices.Clone(c.Entries)
	for k := range c.Entries {
		c.Entries[k].Size, c.Entries[k].Type = to(c.Entries[k].Size), 0
	}
}

// Legal returns an error if a call of a history is not legal where it stands.
func Legal(p Program) error {
	s, retain := new(State), p.Open.Retain
	for k, c := range p.Calls {
		fitted, ok := c.fit(s)
		if !ok || fitted.String() != c.String() {
			return fmt.Errorf("call %d, %v, on %v", k, c, s)
		}
		all := c.outcomes(s, retain)
		if s = all[len(all)-1]; c.begins() {
			retain = c.Open.Retain
		}
	}
	return nil
}
