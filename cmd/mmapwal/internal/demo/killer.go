package demo

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// blow is one planned kill.
type blow struct {
	after  uint64        // writes acknowledged
	until  uint64        // the last write that may be asked for before the kill
	leader bool          // hits whoever leads, else victim
	victim uint64        // node id
	delay  time.Duration // from then to the kill, so that it hits any moment of a Save
	pause  time.Duration // from the node's end to its next start
}

// planBlows spreads the kills over the writes. The first hits the leader.
func planBlows(c *Config) []blow {
	rng := rand.New(rand.NewPCG(c.Seed, streamKills))
	blows := make([]blow, c.Kills)
	for i := range blows {
		share := (float64(i) + 0.1 + 0.7*rng.Float64()) / float64(c.Kills)
		blows[i] = blow{
			after:  uint64(share * float64(c.Writes)),
			leader: rng.IntN(2) == 0 || i == 0,
			victim: 1 + rng.Uint64N(nodes),
			delay:  time.Duration(rng.Int64N(int64(3 * time.Millisecond))),
			pause:  100*time.Millisecond + time.Duration(rng.Int64N(int64(300*time.Millisecond))),
		}
	}
	for i := range blows {
		next := uint64(c.Writes)
		if i+1 < len(blows) {
			next = max(blows[i+1].after, blows[i].after+window)
		}
		blows[i].until = min(next, uint64(c.Writes)-1)
	}
	return blows
}

// killer carries out the plan, one kill after the other: the next is due when all
// nodes are up again.
type killer struct {
	cluster *cluster
	blows   []blow
	say     func(format string, args ...any)

	next      int       // index of the present blow
	hitAt     time.Time // when it is due; zero until it is armed
	down      *member   // whom it hit
	restartAt time.Time // zero until the victim is gone

	leaders, followers int
}

// done says whether all nodes were killed that should be, and are up again.
func (k *killer) done() bool { return k.next == len(k.blows) }

// limit returns up to which write may be asked for: so far that each kill comes
// amid writes, and that some are left after the last.
func (k *killer) limit(writes uint64) uint64 {
	next := k.next
	if k.down != nil {
		next++
	}
	switch {
	case next >= len(k.blows):
		return writes
	case k.down != nil:
		return k.blows[next].after
	}
	return k.blows[next].until
}

// advance does what is due.
func (k *killer) advance(acked uint64, now time.Time) error {
	switch {
	case k.done():
		return nil
	case k.down != nil:
		return k.revive(now)
	case acked < k.blows[k.next].after || !k.cluster.complete():
		k.hitAt = time.Time{}
		return nil
	case k.hitAt.IsZero():
		k.hitAt = now.Add(k.blows[k.next].delay)
		return nil
	case now.Before(k.hitAt):
		return nil
	}
	return k.hit(acked)
}

// hit kills.
func (k *killer) hit(acked uint64) error {
	b, leader := k.blows[k.next], k.cluster.leader()
	victim := k.cluster.members[b.victim-1]
	if b.leader {
		victim = leader
	}
	role := "follower"
	if victim == leader {
		role = "leader"
		k.leaders++
	} else {
		k.followers++
	}
	k.say("kill %d: node %d, %s, after %d writes", k.next+1, victim.id, role, acked)
	k.down, k.hitAt, k.restartAt = victim, time.Time{}, time.Time{}
	return k.cluster.kill(victim)
}

// revive starts the victim again when it is time. The blow is over when it is up.
func (k *killer) revive(now time.Time) error {
	switch {
	case k.down.up():
		k.down = nil
		k.next++
	case k.down.process != nil: // dying, or recovering
	case k.restartAt.IsZero():
		k.restartAt = now.Add(k.blows[k.next].pause)
	case !now.Before(k.restartAt):
		if err := k.cluster.start(k.down); err != nil {
			return fmt.Errorf("after kill %d: %w", k.next+1, err)
		}
	}
	return nil
}
