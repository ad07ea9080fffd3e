package roster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// Who is withheld after the grace period, and who is not.
func TestWithheld(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options func(*Options)
		who     func(*Presence)
		before  func(w *world)
		want    bool
	}{
		{name: "no event", want: true},
		{name: "its event", before: func(w *world) { w.hs.send(key, alice, membership()) }},
		{name: "its event on another SFU", before: func(w *world) { w.hs.send(key, alice, membership(service, "https://y")) }},
		{name: "a leave", before: func(w *world) { w.hs.send(key, alice, "{}") }, want: true},
		{name: "expired", before: func(w *world) { w.hs.send(key, alice, membership("14400000", "1000")) }},
		{name: "the event of another device", before: func(w *world) {
			w.hs.send("_@a:x_E_m.call", alice, membership(`"D"`, `"E"`))
		}, want: true},
		{name: "the event of another user", before: func(w *world) { w.hs.send(key, "@b:x", membership()) }, want: true},
		{name: "its event under the key of 2024", before: func(w *world) { w.hs.send("_@a:x_D", alice, membership()) }},
		{name: "its event under the key of owned state", before: func(w *world) { w.hs.send("@a:x_D_m.call", alice, membership()) }},
		{name: "its event under a key of its own", before: func(w *world) { w.hs.send("whatever", alice, membership()) }},
		{name: "a form that is not understood", before: func(w *world) { w.hs.send(alice, alice, `{"memberships":[{}]}`) }},
		{name: "it may not publish", who: func(p *Presence) { p.Publishes = false }},
		{name: "no device is known", who: func(p *Presence) { p.Device = "" }},
		{name: "a slot that is not known", who: func(p *Presence) { p.Call = "another" }},
		{name: "a slot that is", who: func(p *Presence) { p.Slot, p.Call = "m.call#X", member.RoomName(room, "m.call#X") }, want: true},
		{name: "off", options: func(o *Options) { o.Grace = 0 }},
		{name: "clearing is off", options: func(o *Options) { o.Service = "" }, want: true},
		{name: "nobody may see", before: func(w *world) { w.hs.set(func() { w.hs.outside[alice] = true }) }},
		{name: "the homeserver is down", before: func(w *world) {
			w.hs.set(func() { w.hs.fail = &homeserver.Error{Op: "test", Err: errors.New("refused")} })
		}},
		{name: "only the sender may see", before: func(w *world) {
			w.hs.set(func() { w.hs.outside = map[string]bool{alice: true} })
		}, want: true},
		{name: "a sticky event may be it", who: func(p *Presence) { p.Member = "uuid" }, before: func(w *world) { w.hs.set(func() { w.hs.sticky = true }) }},
		{name: "no sticky events there", who: func(p *Presence) { p.Member = "uuid" }, want: true},
		{name: "the member id of state events", who: func(p *Presence) { p.Member = alice + ":" + device }, before: func(w *world) { w.hs.set(func() { w.hs.sticky = true }) }, want: true},
		{name: "of another homeserver, seen by a local user's eyes", who: func(p *Presence) { p.User, p.Identity = "@c:y", "@c:y:D" }, want: true},
		{name: "of another homeserver, with its event", who: func(p *Presence) { p.User, p.Identity = "@c:y", "@c:y:D" }, before: func(w *world) {
			w.hs.send("_@c:y_D_m.call", "@c:y", membership("@a:x:D", "@c:y:D"))
		}},
		{name: "of another homeserver, its event may be sticky", who: func(p *Presence) { p.User, p.Identity, p.Member = "@c:y", "@c:y:D", "uuid" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.options)
				defer func() { w.stop() }()
				if tt.before != nil {
					tt.before(w)
				}
				w.pass(2 * time.Second)
				w.hs.requests()
				bob := Presence{Stay: Stay{room, call, "@b:x", "B"}, Identity: "@b:x:B", Session: "b"}
				w.Joined(bob)
				p := someone("1")
				if tt.who != nil {
					tt.who(&p)
				}
				w.Joined(p)
				w.pass(14 * time.Second)
				if w.holds("1") {
					t.Error("withheld within the grace period")
				}
				if asked := w.hs.requests(); len(asked) != 0 {
					t.Errorf("asked %q within the grace period", asked)
				}
				w.pass(2 * time.Second)
				if got := w.holds("1"); got != tt.want {
					t.Errorf("withheld: %t, want %t (asked %q)", got, tt.want, w.hs.requests())
				}
			})
		})
	}
}

// One who is withheld is let through as soon as its membership is seen, told by the homeserver or read.
func TestLetThrough(t *testing.T) {
	for _, told := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			defer func() { w.stop() }()
			w.Joined(someone("1"))
			w.pass(5 * time.Minute)
			if !w.holds("1") || w.Stats().Withheld != 1 {
				t.Fatal("not withheld")
			}
			if n := len(w.hs.requests()); n > 150 {
				t.Errorf("%d requests in 5 minutes", n)
			}
			w.hs.send(key, alice, membership())
			wait := maxRecheck
			if told {
				w.Told(room, w.hs.state[key])
				wait = 0
			}
			w.pass(wait)
			if w.holds("1") || w.Stats().Withheld != 0 {
				t.Errorf("still withheld (told: %t)", told)
			}
			w.pass(time.Hour)
			if w.holds("1") {
				t.Error("withheld again")
			}
		})
	}
}

// A membership that is taken back while its participant is here: the grace period begins anew.
func TestTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer func() { w.stop() }()
		w.Joined(someone("1"))
		w.hs.send(key, alice, membership())
		w.Told(room, w.hs.state[key])
		w.pass(time.Minute)
		for _, again := range []bool{true, false} {
			w.hs.send(key, alice, "{}")
			w.Told(room, w.hs.state[key])
			w.pass(14 * time.Second)
			if again { // a client that was bounced announces itself
				w.hs.send(key, alice, membership())
				w.Told(room, w.hs.state[key])
			}
			w.pass(2 * time.Second)
			if got := w.holds("1"); got == again {
				t.Errorf("announced itself again: %t, withheld: %t", again, got)
			}
		}
	})
}

// A session that follows a withheld one has a grace period of its own.
func TestNextSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer func() { w.stop() }()
		w.Joined(someone("1"))
		w.pass(20 * time.Second)
		w.Joined(someone("2"))
		w.leave(someone("1"))
		w.pass(14 * time.Second)
		if w.holds("2") {
			t.Error("the next session is withheld at once")
		}
		w.pass(time.Minute)
		if !w.holds("2") {
			t.Error("the next session is not withheld")
		}
		w.leave(someone("2"))
		w.pass(time.Minute)
		if s := w.Stats(); s.Stays != 0 || s.Withheld != 0 {
			t.Errorf("left over: %+v", s)
		}
	})
}

// What cannot be stored is stored with the next change.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer func() { w.stop() }()
		full := errors.New("disk full")
		w.disk.mu.Lock()
		w.disk.fail = full
		w.disk.mu.Unlock()
		w.Joined(someone("1"))
		w.pass(time.Second)
		if w.disk.size() != 0 || w.Stats().StoreFailures == 0 {
			t.Errorf("%d on a full disk, stats %+v", w.disk.size(), w.Stats())
		}
		if _, err := New(context.Background(), Options{Store: w.disk}); !errors.Is(err, full) {
			t.Errorf("new with a store that fails: %v", err)
		}
		w.disk.mu.Lock()
		w.disk.fail = nil
		w.disk.mu.Unlock()
		w.Joined(someone("2"))
		w.pass(time.Second)
		if w.disk.size() != 1 {
			t.Errorf("%d on disk, want 1", w.disk.size())
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}
