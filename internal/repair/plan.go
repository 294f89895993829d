package repair

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Report says what is wrong with a log, and what a repair does, or has done.
type Report struct {
	Dir      string `json:"dir"`
	Damaged  bool   `json:"damaged"`          // before the repair
	Degraded bool   `json:"degraded"`         // nothing is missing, but of two copies one was
	Needed   bool   `json:"needed"`           // there is something to repair
	Done     bool   `json:"done"`             // it was
	Backup   string `json:"backup,omitempty"` // directory with the files as they were, once there is one

	Files  []File `json:"files"`
	Before Range  `json:"before"`
	After  Range  `json:"after"`
	Lost   *Range `json:"lost,omitempty"` // nil: nothing that counts
	// More says that entries behind the last one may be lost, of which nothing is known.
	More bool `json:"more_may_be_lost,omitempty"`
	// MayDiffer is entries that are there, and may be ones that had been replaced by what
	// cannot be read; nil: none. Stale says that there are such.
	MayDiffer *Range `json:"may_be_replaced,omitempty"`
	Stale     bool   `json:"some_may_be_replaced,omitempty"`

	Changed []string          `json:"changed"`             // files that are changed, set aside or removed: they are in the backup
	Remains []inspect.Problem `json:"remains"`             // damage that no repair heals
	Refused string            `json:"refused,omitempty"`   // why nothing can be repaired
	Next    string            `json:"next_step,omitempty"` // for the operator
}

// Loses reports whether entries are lost, or may be: the node must not start.
func (r *Report) Loses() bool { return r.Lost != nil || r.More || r.Stale }

// Range is a range of entries, and how many of them can be read.
type Range struct {
	First   uint64 `json:"first"` // 0: none
	Last    uint64 `json:"last"`
	Entries int    `json:"entries"`
}

// File is what was found in a file, and what is done about it.
type File struct {
	Name   string            `json:"name"`
	Found  []inspect.Problem `json:"found"`
	Done   []string          `json:"done"`
	Before Range             `json:"before"` // its entries that count
	After  Range             `json:"after"`
}

// Plan is a repair that was rehearsed. It holds the owner's lock until Close.
type Plan struct {
	Report Report

	o       Options
	work    *work // on the disk
	before  *inspect.Log
	reading *reading // of it
}

// Rehearse finds out what a repair of the log in dir does. It changes nothing. If
// the Report says that it is Needed, and it is not Refused, Execute does it.
//
// Errors: mmapwal.ErrLocked if the log is open elsewhere, encryption.ErrKeyRequired,
// those of inspect.Look.
func Rehearse(ctx context.Context, dir string, o Options) (_ *Plan, err error) {
	if o.Host.FS == nil {
		o.Host = host.OS()
	}
	p := &Plan{o: o, work: &work{o: o, fsys: o.Host.FS, dir: filepath.Clean(dir)}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.before, err = p.lockAndLook(ctx); err != nil {
		return nil, err
	}
	l := p.before
	if l.Meta != nil && l.Meta.Encrypted && o.Wrapper == nil {
		return nil, fmt.Errorf("%s: %w", dir, mmapwal.ErrKeyRequired)
	}
	p.Report = Report{Dir: dir, Damaged: l.Damaged(), Degraded: l.Count(inspect.Degraded) > 0, Needed: slices.ContainsFunc(l.Problems, repairable(l)),
		Files: []File{}, Changed: []string{}, Remains: []inspect.Problem{}}
	if p.reading, err = readAll(ctx, l); err != nil {
		return nil, err
	}
	p.Report.Before, p.Report.After = p.reading.all, p.reading.all
	if !p.Report.Needed {
		return p, nil
	}
	return p, p.rehearse(ctx)
}

// lockAndLook looks at the log while nobody else has it open.
func (p *Plan) lockAndLook(ctx context.Context) (*inspect.Log, error) {
	switch err := p.work.take(); {
	case errors.Is(err, vfs.ErrLocked):
		return nil, fmt.Errorf("%w: %w", mmapwal.ErrLocked, err)
	case err != nil && p.exists():
		return nil, err
	}
	return p.work.look(ctx)
}

// exists reports whether there is a wal.meta.
func (p *Plan) exists() bool {
	infos, err := p.o.Host.FS.List(p.work.dir)
	return err == nil && slices.ContainsFunc(infos, func(i vfs.Info) bool { return i.Name == metafile.Name })
}

// Close gives the lock up.
func (p *Plan) Close() error { return p.work.give() }

// repairable returns whether a problem of l is one that a repair is for. What the
// next Open does anyway, but for a torn tail, is not.
func repairable(l *inspect.Log) func(p inspect.Problem) bool {
	ended := make(map[string]bool)
	for _, f := range l.Files {
		ended[f.Name] = f.Sealed || f.Ended
	}
	return func(p inspect.Problem) bool {
		switch {
		case p.Severity == inspect.Damage:
			return true
		case p.Kind == inspect.KindTorn:
			return !ended[p.File] // what lies behind the end of a file was dropped
		}
		return p.Kind == inspect.KindMeta || p.Kind == inspect.KindHeader
	}
}

// rehearse does the repair in memory, and reports it.
func (p *Plan) rehearse(ctx context.Context) (err error) {
	if k := slices.IndexFunc(p.before.Problems, func(q inspect.Problem) bool { return q.Kind == inspect.KindNotFile }); k >= 0 {
		p.refuse(fmt.Errorf("%s is no regular file, and what belongs there may be elsewhere", p.before.Problems[k].File))
		p.Report.Next = p.before.Problems[k].Heal
		return nil
	}
	stage, err := rehearse(p.o.Host.FS, p.work.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.close()) }()
	w := &work{o: p.o, fsys: stage, dir: p.work.dir}
	after, err := w.run(ctx, p.before)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r := &p.Report
	if err != nil {
		p.refuse(err)
		return nil
	}
	r.Changed = append(r.Changed, stage.changed()...)
	if err := p.compare(ctx, after, w); err != nil {
		return err
	}
	if len(r.Remains) > 0 && len(r.Remains) >= p.before.Count(inspect.Damage) {
		p.refuse(errors.New("no repair heals this damage"))
		return nil
	}
	r.Next = next(r)
	return nil
}

// refuse reports that the log cannot be repaired.
func (p *Plan) refuse(why error) {
	r := &p.Report
	*r = Report{Dir: r.Dir, Damaged: r.Damaged, Degraded: r.Degraded, Needed: r.Needed, Refused: why.Error(), Before: r.Before, After: r.Before,
		Files: []File{}, Changed: []string{}, Remains: []inspect.Problem{}}
	for _, problem := range p.before.Problems {
		if problem.Severity == inspect.Damage {
			r.Remains = append(r.Remains, problem)
			r.Next = cmp.Or(r.Next, problem.Heal)
		}
	}
	if errors.Is(why, ErrDgraph) {
		r.Next = "if Dgraph has opened this directory, import it with `mmapwal import --from dgraph`; if it certainly has not, run this again with --not-dgraph"
	}
}

// compare reports what the repair makes of the log.
func (p *Plan) compare(ctx context.Context, after *inspect.Log, w *work) error {
	r := &p.Report
	now, err := readAll(ctx, after)
	if err != nil {
		return err
	}
	r.After, r.Files = now.all, filesOf(p.before, after, p.reading.files, now.files, w.done)
	w.judge(r, after, now)
	for _, q := range after.Problems {
		if q.Severity == inspect.Damage {
			r.Remains = append(r.Remains, q)
		}
	}
	return nil
}

// judge says what is lost: from the first entry on that is another one now, or missing, but
// for those that the snapshot covers; and what may be.
func (w *work) judge(r *Report, after *inspect.Log, now *reading) {
	t := &w.truth
	from := uint64(1)
	if after.Meta != nil {
		from = after.Meta.Snapshot.Index + 1
	}
	r.Lost, r.MayDiffer, r.More = nil, nil, t.more
	if lost := min(w.had.differs(now, from), t.lost); lost != math.MaxUint64 {
		last := max(w.had.all.Last, t.reached, lost)
		r.Lost = &Range{First: lost, Last: last, Entries: int(last - lost + 1)}
	}
	doubt := t.doubt
	if now.all.Last > w.had.all.Last {
		doubt.add(span{w.had.all.Last + 1, now.all.Last})
	}
	if doubt.last = min(doubt.last, now.all.Last); doubt.first != 0 && doubt.first <= doubt.last {
		r.MayDiffer = &Range{First: doubt.first, Last: doubt.last, Entries: int(doubt.last - doubt.first + 1)}
	}
	r.Stale = r.MayDiffer != nil
}

// filesOf says for each file what was found and done.
func filesOf(before, after *inspect.Log, filesBefore, filesAfter map[string]Range, done []Action) []File {
	var names []string
	kept := make(map[string]bool)
	for k, l := range []*inspect.Log{before, after} {
		for _, f := range l.Files {
			names = append(names, f.Name)
			kept[f.Name] = kept[f.Name] || k == 1
		}
		for _, o := range l.Others {
			names = append(names, o.Name)
			kept[o.Name] = kept[o.Name] || k == 1
		}
	}
	found, did := make(map[string][]inspect.Problem), make(map[string][]string)
	for _, p := range before.Problems {
		found[p.File] = append(found[p.File], p)
	}
	for _, a := range done {
		did[a.File] = append(did[a.File], a.What)
	}
	slices.Sort(names)
	files := []File{}
	for _, name := range slices.Compact(names) {
		f := File{Name: name, Found: append([]inspect.Problem{}, found[name]...), Done: append([]string{}, did[name]...),
			Before: filesBefore[name], After: filesAfter[name]}
		if !kept[name] && len(f.Done) == 0 {
			f.Done = append(f.Done, "removed, as at every Open: the log does not need it")
		}
		files = append(files, f)
	}
	return files
}

// afterLoss says what to do with a node that has lost entries.
const afterLoss = "the node may have acknowledged what is lost, and could break the guarantees of its group: " +
	"remove it from the group and add it anew, with an empty directory, or, if the group is lost otherwise, start it knowing that (docs/operations.md)"

// next says what the operator does next: after a repair, or a rehearsal of one.
func next(r *Report) string {
	switch {
	case len(r.Remains) > 0:
		return r.Remains[0].Heal
	case r.Loses() && !r.Done:
		return "look for intact copies of the damaged files, of the same time, in a backup or a file-system snapshot of this node: put back, they heal this without loss. " +
			"Without them repair it, with --yes, and do not start the node as the member that it was: " + afterLoss
	case r.Loses():
		return afterLoss
	case !r.Done:
		return "repair it, with --yes: nothing that counts gets lost; then start the node"
	}
	return "nothing that counts is lost: start the node"
}

// Execute copies the files that the repair changes to the directory backup, which is
// made or empty, and repairs the log. An error before the first change leaves the
// log as it was; the Report's Backup is empty then. After a later one the repair can
// be begun again: with a new Rehearse.
func (p *Plan) Execute(ctx context.Context, backup string) error {
	r := &p.Report
	if err := p.checkPlace(backup); err != nil {
		return err
	}
	if err := backUp(p.work.fsys, p.work.dir, backup, r); err != nil {
		return fmt.Errorf("backup: nothing has changed: %w", err)
	}
	r.Backup = backup
	after, err := p.work.run(context.WithoutCancel(ctx), p.before)
	if err != nil {
		return fmt.Errorf("stopped half-way: the files as they were are in %s; run it again: %w", backup, err)
	}
	if after.Count(inspect.Damage) > len(r.Remains) {
		return fmt.Errorf("there is damage that was not there in the rehearsal; the files as they were are in %s: run it again, and do not trust this disk", backup)
	}
	r.Remains, r.Done = []inspect.Problem{}, true
	if err := p.compare(ctx, after, p.work); err != nil {
		return err
	}
	r.Next = next(r)
	return nil
}

// checkPlace refuses a backup inside of the log's directory.
func (p *Plan) checkPlace(backup string) error {
	dir, err := filepath.Abs(p.work.dir)
	if err != nil {
		return err
	}
	target, err := filepath.Abs(backup)
	if err != nil {
		return err
	}
	for ; ; target = filepath.Dir(target) {
		if target == dir {
			return fmt.Errorf("%s is inside of the log's directory: a backup goes elsewhere", backup)
		}
		if target == filepath.Dir(target) {
			return nil
		}
	}
}
