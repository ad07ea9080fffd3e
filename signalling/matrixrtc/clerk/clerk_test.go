package clerk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A diary is a book of appointments: each is a task at its time, and writing one down is a change.
type diary struct {
	at      map[string]time.Time
	changes []string // "name state"
}

func (d *diary) Due(now time.Time) (due []string) {
	for name, at := range d.at {
		if !now.Before(at) {
			due = append(due, name)
			delete(d.at, name)
			d.changes = append(d.changes, name+" over")
		}
	}
	return due
}

func (d *diary) Next() (next time.Time, any bool) {
	for _, at := range d.at {
		if !any || at.Before(next) {
			next, any = at, true
		}
	}
	return next, any
}

func (d *diary) Changes() []string {
	defer func() { d.changes = nil }()
	return d.changes
}

func (d *diary) add(name string, at time.Time) {
	d.at[name] = at
	d.changes = append(d.changes, name+" open")
}

// A task is done when it is due, and on disk before it is; the loops beside end with Close.
func TestClerk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := &diary{at: map[string]time.Time{}}
		start := time.Now()
		var got []string
		note := func(what string) { got = append(got, time.Since(start).String()+" "+what) }
		c := New(Options[string, string]{
			Book: book, AtOnce: 1, What: "appointments",
			Perform: func(_ context.Context, task string) { note(task) },
			Apply: func(_ context.Context, changes []string) error {
				note("stores " + strings.Join(changes, ", "))
				return nil
			},
			Key: func(change string) any { return change },
		})
		ended := make(chan struct{})
		go func() {
			c.Run(t.Context(), func(ctx context.Context) { <-ctx.Done() })
			close(ended)
		}()
		c.Do(func(now time.Time) { book.add("tea", now.Add(time.Minute)) })
		time.Sleep(2 * time.Minute)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		<-ended
		want := []string{"0s stores tea open", "1m0s stores tea over", "1m0s tea"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// What the store does not take is kept, the last change under each key only, and comes with the next ones.
func TestStoreFails(t *testing.T) {
	book := &diary{at: map[string]time.Time{}}
	full := errors.New("the disk is full")
	var stored []string
	c := New(Options[string, string]{
		Book: book, What: "appointments",
		Apply: func(_ context.Context, changes []string) error {
			if full != nil {
				return full
			}
			stored = slices.Clone(changes)
			return nil
		},
		Key: func(change string) any { name, _, _ := strings.Cut(change, " "); return name },
	})
	book.changes = []string{"tea open", "lunch open", "tea over"}
	if err := c.Save(t.Context()); !errors.Is(err, full) || !strings.HasPrefix(err.Error(), "store appointments: ") || c.StoreFailures() != 1 {
		t.Fatalf("got %v, failures %d", err, c.StoreFailures())
	}
	full = nil
	book.changes = []string{"lunch over"}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"tea over", "lunch over"}, stored); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Close may come before Run, which then does nothing.
func TestClosedBeforeRun(t *testing.T) {
	c := New(Options[string, string]{
		Book: &diary{}, AtOnce: 1, Key: func(change string) any { return change },
	})
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.Run(t.Context(), func(context.Context) { t.Error("a loop runs") })
}
