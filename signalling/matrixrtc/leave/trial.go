package leave

import (
	"context"
	"errors"
	"sync"
	"time"

	"callserver/signalling/homeserver"
)

const (
	// trialLife is how long a success is believed.
	trialLife = 10 * time.Minute
	// lapseLife is how long after a success leaves are taken over unseen from clients that probed when it still counted.
	// They put their leave off for that long.
	lapseLife = time.Hour
	// trialEvery is when the next trial is after a success, and trialRetry after a failure.
	trialEvery = 4 * time.Minute
	trialRetry = 20 * time.Second
)

// A trial is what is known about the delayed events of one homeserver. Safe for concurrent use.
type trial struct {
	mu     sync.Mutex
	held   time.Time // the last success
	none   bool      // the homeserver said that it has no delayed events
	barred bool      // it did not let us manage a client's
	told   bool      // what is so was logged
}

func (t *trial) good(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.withinLocked(trialLife, now) && !t.barred
}

// lately is like good for those who were told so.
func (t *trial) lately(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.withinLocked(lapseLife, now)
}

func (t *trial) withinLocked(life time.Duration, now time.Time) bool {
	return !t.held.IsZero() && now.Sub(t.held) < life
}

// bar notes whether the homeserver let us manage the event of a client, and reports whether that is new. Our own are no
// proof of it.
func (t *trial) bar(refused bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.barred
	t.barred = refused
	return refused && !was
}

func (t *trial) without() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.none
}

// note takes the end of a trial and reports whether it says something new.
func (t *trial) note(err error, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, wasNone := !t.held.IsZero() && now.Sub(t.held) < trialEvery+trialRetry, t.none
	if err == nil {
		t.held = now
	}
	t.none = errors.Is(err, homeserver.ErrNoDelay)
	if t.none {
		t.held = time.Time{}
	}
	fresh := !t.told || was != (err == nil) || wasNone != t.none
	t.told = true
	return fresh
}

// Real reports whether clients may rely on us, whoever's they are: on no homeserver may delayed events be there and fail
// us. Where there are none, clients have nothing to delegate.
func (k *Keeper) Real() bool {
	now, any := time.Now(), false
	for _, t := range k.trials {
		switch {
		case t.good(now):
			any = true
		case !t.without():
			return false
		}
	}
	return any
}

// trialLoop tries the delayed events of one homeserver again and again.
func (k *Keeper) trialLoop(ctx context.Context, name string, t *trial) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := k.options.Homeservers[name].Try(ctx)
		if ctx.Err() != nil {
			return
		}
		fresh := t.note(err, time.Now())
		if err == nil {
			k.clerk.Do(func(now time.Time) { k.book.Returned(name, now) })
		}
		switch {
		case err == nil && fresh:
			k.log.Info("delayed leaves can be delegated", "homeserver", name)
		case errors.Is(err, homeserver.ErrNoDelay) && fresh:
			k.log.Info("homeserver has no delayed events: members whose client crashed are cleared here, where membership.sweep and a registration allow it", "homeserver", name)
		case err != nil && fresh:
			k.log.Warn("delayed leaves cannot be delegated: clients are told to restart them on their own", "homeserver", name, "err", err)
		}
		if err == nil {
			timer.Reset(trialEvery)
		} else {
			timer.Reset(trialRetry)
		}
	}
}
