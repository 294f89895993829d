package demo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Run runs the demo, and leaves no process behind. The report is nil if the run
// did not come to its end. The error says what went wrong: a *ConfigError if
// nothing was done, a *CheckError if the logs do not hold what they must, the
// cause of ctx's end, or what kept the demo from running.
func Run(ctx context.Context, c Config) (r *Report, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	space, err := newWorkspace(c.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if !c.Keep {
			err = errors.Join(err, space.remove())
		}
	}()
	limit := c.deadline()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the demo was not done after %v", limit))
	defer cancel()
	d := newDriver(&c, space)
	d.say("seed %d, logs in %s", c.Seed, space.dir)
	return d.run(ctx)
}

// driver makes the cluster, the client and the killer work together. One
// goroutine, that of Run, owns all of them.
type driver struct {
	config  *Config
	space   *workspace
	session session
	cluster *cluster
	client  *client
	killer  *killer
	report  *Report
	ackedAt time.Time // when the last write was acknowledged
	greeted bool
}

func newDriver(c *Config, space *workspace) *driver {
	s := newSession(c.Seed)
	d := &driver{
		config:  c,
		space:   space,
		session: s,
		cluster: newCluster(c.Node, s.id, space.logs),
		client:  newClient(s, c.Writes),
		report:  &Report{Seed: c.Seed, Dir: space.dir},
	}
	d.killer = &killer{cluster: d.cluster, blows: planBlows(c), say: d.say}
	return d
}

func (d *driver) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.config.Out, format+"\n", args...) // what matters is what the checks return
}

// run writes and kills, stops the nodes, and checks the logs.
func (d *driver) run(ctx context.Context) (*Report, error) {
	began := time.Now()
	err := d.write(ctx)
	if err == nil {
		err = d.cluster.stop(ctx)
	}
	if err = errors.Join(err, d.cluster.close()); err != nil {
		return nil, err
	}
	err = d.check(ctx)
	d.fill(time.Since(began))
	return d.report, err
}

// write drives the cluster until all is written, killed, up again and applied.
func (d *driver) write(ctx context.Context) error {
	if err := d.cluster.startAll(); err != nil {
		return err
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !d.settled() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-d.cluster.events:
			if err := d.handle(e); err != nil {
				return err
			}
		case <-ticker.C:
		}
		if err := d.step(time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// settled says whether there is nothing left to wait for.
func (d *driver) settled() bool {
	return d.client.acked == d.client.writes && d.killer.done() && d.cluster.settled(d.client.writes)
}

// handle takes in an event.
func (d *driver) handle(e event) error {
	if e.report != nil {
		d.report.saves = append(d.report.saves, e.report.Saves...)
	}
	h, err := d.cluster.handle(e)
	if err != nil {
		return err
	}
	if h != nil && d.greeted {
		d.report.recoveries = append(d.report.recoveries, h.Recovery)
	}
	before := d.client.acked
	d.client.acknowledge(d.cluster.members[e.process.id-1], time.Now())
	if d.client.acked > before {
		d.config.Progress(int(d.client.acked))
	}
	return nil
}

// step does what is due after an event, or with time.
func (d *driver) step(now time.Time) error {
	if !d.greeted {
		if !d.cluster.complete() {
			return nil
		}
		d.greeted = true
		d.say("%d nodes are up, node %d leads", nodes, d.cluster.leader().id)
	}
	if err := d.killer.advance(d.client.acked, now); err != nil {
		return err
	}
	d.client.follow(d.cluster.leader(), now)
	d.client.pump(d.killer.limit(d.client.writes), now)
	return d.hurry(now)
}

// hurry fails if the nodes do not come to agree once all is acknowledged.
func (d *driver) hurry(now time.Time) error {
	switch {
	case d.client.acked < d.client.writes || !d.killer.done():
	case d.ackedAt.IsZero():
		d.ackedAt = now
	case now.Sub(d.ackedAt) > settleTimeout:
		return fmt.Errorf("the nodes did not catch up with one another within %v", settleTimeout)
	}
	return nil
}

// check checks the logs that the nodes left.
func (d *driver) check(ctx context.Context) error {
	figures, err := checkLogs(ctx, d.space.logs, &record{
		session: d.session,
		places:  d.cluster.places[:d.client.acked],
		sent:    d.client.sent,
	})
	d.report.logs = figures
	return err
}

// fill puts the figures of the run into the report.
func (d *driver) fill(took time.Duration) {
	r := d.report
	r.Writes, r.Resent = int(d.client.acked), d.client.resent()
	r.LeaderKills, r.FollowerKills = d.killer.leaders, d.killer.followers
	r.Duration = took
}
