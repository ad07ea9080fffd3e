// A Clerk works through a book, which is plain state that says what is due: it has the tasks done, sees that what changed
// is stored, and sleeps until something is due again.
// Package clerk owns that loop, the lock around the book, and the way of the changes to the store.
// It never knows what a task or a change is about, and speaks to nobody.
package clerk

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// storeWithin is how long the store may take.
const storeWithin = 5 * time.Second

// A Book says what is due and what has changed since it was asked. Its clerk calls it under the clerk's lock.
type Book[T, C any] interface {
	Due(now time.Time) []T
	Next() (at time.Time, any bool) // when something is due next
	Changes() []C
}

// Options of a Clerk. Book, Perform, Key and Lost are required.
type Options[T, C any] struct {
	Book    Book[T, C]
	Perform func(ctx context.Context, task T) // called for several at a time
	AtOnce  int                               // tasks at a time; the next one waits
	Before  func()                            // called when tasks are due, before these are stored and done; nil: nothing

	Apply func(ctx context.Context, changes []C) error // stores all of them or none; nil: nothing is stored
	Key   func(C) any                                  // comparable: of the changes under one key only the last one counts
	Lost  func(err error)                              // called by the loop when changes could not be stored
	What  string                                       // the changes are about, for errors: "delayed leaves"
}

// A Clerk is made by New, and worked by Run. Safe for concurrent use.
type Clerk[T, C any] struct {
	options       Options[T, C]
	wake          chan struct{} // capacity 1
	storeFailures atomic.Uint64

	mu sync.Mutex // guards the book

	running sync.WaitGroup // Run, entered by mu
	stop    chan struct{}
	stopped sync.Once

	storing sync.Mutex // held while changes are on their way to the store, so that they get there in order
	unsaved []C        // by storing
}

// New returns a Clerk that does nothing before Run.
func New[T, C any](o Options[T, C]) *Clerk[T, C] {
	if o.Before == nil {
		o.Before = func() {}
	}
	return &Clerk[T, C]{options: o, wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

// StoreFailures counts since the start.
func (c *Clerk[T, C]) StoreFailures() uint64 { return c.storeFailures.Load() }

// Do changes the book under the lock, and has the loop look what is due now.
func (c *Clerk[T, C]) Do(change func(now time.Time)) {
	c.Look(func() { change(time.Now()) })
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Look calls read under the lock of the book.
func (c *Clerk[T, C]) Look(read func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	read()
}

// Close ends Run, returns when it has ended, and stores what is left. Closing twice is fine.
func (c *Clerk[T, C]) Close() error {
	c.Look(func() { c.stopped.Do(func() { close(c.stop) }) })
	c.running.Wait()
	return c.Save(context.Background())
}

// enter counts Run in; false once closed.
func (c *Clerk[T, C]) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stop:
		return false
	default:
		c.running.Add(1)
		return true
	}
}

// Run works, and runs the owner's loops beside it, until ctx ends or Close is called. It returns when all have ended, and
// is called once.
func (c *Clerk[T, C]) Run(ctx context.Context, beside ...func(context.Context)) {
	if !c.enter() {
		return
	}
	defer c.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() {
		defer cancel()
		select {
		case <-c.stop:
		case <-ctx.Done():
		}
	})
	for _, loop := range beside {
		loops.Go(func() { loop(ctx) })
	}
	c.runLoop(ctx)
}

func (c *Clerk[T, C]) runLoop(ctx context.Context) {
	var tasks errgroup.Group
	defer func() {
		_ = tasks.Wait() // none fails
		c.saveOrTell(ctx)
	}()
	tasks.SetLimit(c.options.AtOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.wake:
		}
		var due []T
		c.Look(func() { due = c.options.Book.Due(time.Now()) })
		c.options.Before()
		c.saveOrTell(ctx) // what is about to be done is on disk before it is
		for _, task := range due {
			tasks.Go(func() error {
				c.options.Perform(ctx, task)
				return nil
			})
		}
		timer.Reset(c.pause())
	}
}

// pause is how long the loop has nothing to do.
func (c *Clerk[T, C]) pause() time.Duration {
	c.mu.Lock()
	next, any := c.options.Book.Next()
	c.mu.Unlock()
	if !any {
		return time.Hour
	}
	return max(0, time.Until(next))
}

// Save brings the changes of the book to the store now. What cannot be stored is tried again with the next change.
func (c *Clerk[T, C]) Save(ctx context.Context) error {
	c.storing.Lock()
	defer c.storing.Unlock()
	c.Look(func() { c.unsaved = append(c.unsaved, c.options.Book.Changes()...) })
	if c.options.Apply == nil || len(c.unsaved) == 0 {
		c.unsaved = nil
		return nil
	}
	c.unsaved = c.compacted(c.unsaved)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWithin)
	defer cancel()
	if err := c.options.Apply(ctx, c.unsaved); err != nil {
		c.storeFailures.Add(1)
		return fmt.Errorf("store %s: %w", c.options.What, err)
	}
	c.unsaved = nil
	return nil
}

// compacted keeps the latest change under each key: a disk that is full for long costs no memory.
func (c *Clerk[T, C]) compacted(changes []C) []C {
	latest := map[any]int{}
	for i, change := range changes {
		latest[c.options.Key(change)] = i
	}
	kept := changes[:0]
	for i, change := range changes {
		if latest[c.options.Key(change)] == i {
			kept = append(kept, change)
		}
	}
	return kept
}

func (c *Clerk[T, C]) saveOrTell(ctx context.Context) {
	if err := c.Save(ctx); err != nil {
		c.options.Lost(err)
	}
}
