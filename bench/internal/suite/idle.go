package suite

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
)

// idlePause is how long logs are left alone before they are looked at: what they do in
// the background has ended then.
const idlePause = 200 * time.Millisecond

// idled is what a log takes that does nothing, beside others.
type idled struct{ each Usage }

// IdleResult is what each of so many logs in one process takes, with one entry each,
// while nothing is done with them.
type IdleResult struct {
	Contender string `json:"contender"`
	Logs      int    `json:"logs"`
	Each      Usage  `json:"each"`
}

func idlePoints(logs int) []int { return []int{1, logs} }

// idle opens logs and leaves them alone.
func (r *runner) idle(c contender.Contender, dir string) error {
	var all []idled
	for _, n := range idlePoints(r.cfg.IdleLogs) {
		err := r.inside(dir, func(dir string) error {
			each, err := r.idleLogs(c, dir, n)
			all = append(all, idled{each})
			return err
		})
		if err != nil {
			return err
		}
	}
	r.idles[c.Name] = append(r.idles[c.Name], all)
	return nil
}

func (r *runner) idleLogs(c contender.Contender, dir string, n int) (each Usage, err error) {
	before := usage(dir)
	var logs []contender.Log
	for k := range n {
		l, openErr := r.openIdle(c, filepath.Join(dir, strconv.Itoa(k)))
		if l != nil {
			logs = append(logs, l)
		}
		if err = openErr; err != nil {
			break
		}
	}
	time.Sleep(idlePause)
	each = usage(dir).since(before, n)
	for _, l := range logs {
		err = errors.Join(err, l.Close())
	}
	return each, err
}

// openIdle returns a log with one entry.
func (r *runner) openIdle(c contender.Contender, dir string) (contender.Log, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := c.Open(dir, contender.Options{})
	if err != nil {
		return nil, err
	}
	r.source.restart()
	return l, l.Append(r.source.batch(1, growthSize))
}

func (r *runner) idleResults(c contender.Contender) []IdleResult {
	var all []IdleResult
	rounds := r.idles[c.Name]
	if len(rounds) == 0 {
		return nil
	}
	for k, n := range idlePoints(r.cfg.IdleLogs) {
		each := medianUsage(at(rounds, k), func(i idled) Usage { return i.each })
		all = append(all, IdleResult{Contender: c.Name, Logs: n, Each: each})
	}
	return all
}
