package roster

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// Every condition of clearing a membership, and what happens where it does not hold. Each case begins with a client that
// joined, announced itself, and was lost a minute later; its membership must be cleared within 8 s, or not at all.
func TestClearOnlyIf(t *testing.T) {
	hashed := func(p Presence) Presence {
		p.Identity = member.MemberIdentity(alice, device, alice+":"+device)
		return p
	}
	for _, tt := range []struct {
		name    string
		options func(*Options)
		content string // of the membership; empty means what Element Call sends
		sender  string
		lost    func(w *world) // when the client was lost, before anything is done
		kept    bool
	}{
		{name: "all conditions hold"},
		{name: "another slash at the end of the URL", content: membership(service, service+"/")},
		{name: "another SFU", content: membership(service, "https://rtc.y/livekit/jwt"), kept: true},
		{name: "a URL that begins like ours", content: membership(service, service+"2"), kept: true},
		{name: "another scheme", content: membership(service, "http"+strings.TrimPrefix(service, "https")), kept: true},
		{name: "no SFU", content: membership(`{"type":"livekit","livekit_service_url":"`+service+`","livekit_alias":"!r:x"}`, ""), kept: true},
		{name: "ours is not the preferred one", content: membership(`"foci_preferred":[`, `"foci_preferred":[{"type":"livekit","livekit_service_url":"https://y"},`), kept: true},
		{name: "another call of the room", content: membership(`"call_id":""`, `"call_id":"other"`), kept: true},
		{name: "another device's content", content: membership(`"device_id":"D"`, `"device_id":"E"`), kept: true},
		{name: "an older form that nobody reads", content: `{"memberships":[]}`, kept: true},
		{name: "somebody else wrote it", sender: "@b:x", kept: true},
		{name: "clearing is off", options: func(o *Options) { o.Service = "" }, kept: true},
		{name: "a homeserver of others", options: func(o *Options) { o.Homeservers = map[string]Homeserver{"y": newFake()} }, kept: true},
		{name: "it is here under its hashed identity", lost: func(w *world) { w.Joined(hashed(someone("2"))) }, kept: true},
		{name: "it is here under the newest identity", lost: func(w *world) {
			p := someone("2")
			p.Device, p.Member, p.Identity = "", "m", member.UnlinkedIdentity(alice, "m")
			w.Joined(p)
		}, kept: true},
		{name: "it is here under an identity of the event's", content: membership("@a:x:D", "uuid"), lost: func(w *world) {
			p := someone("2")
			p.Device, p.Identity = "OTHER", member.MemberIdentity(alice, device, "uuid")
			w.Joined(p)
		}, kept: true},
		{name: "it came back", lost: func(w *world) {
			time.Sleep(2 * time.Second)
			w.Joined(someone("2"))
		}, kept: true},
		{name: "its next session took over", lost: func(w *world) { w.Joined(someone("2")); w.leave(someone("1")) }, kept: true},
		{name: "it got a token again", lost: func(w *world) { w.Issued(someone("")) }, kept: true},
		{name: "another device of the user is here", lost: func(w *world) {
			p := someone("2")
			p.Device, p.Identity = "E", alice+":E"
			w.Joined(p)
		}},
		{name: "it is here in another call of the room", lost: func(w *world) {
			p := someone("2")
			p.Call = "other"
			w.Joined(p)
		}},
		{name: "it announced itself again", lost: func(w *world) {
			time.Sleep(time.Second)
			w.hs.send(key, alice, membership())
		}, kept: true},
		{name: "it announced itself again between the readings", lost: func(w *world) {
			w.onRead(1, func() { w.hs.send(key, alice, membership()) })
		}, kept: true},
		{name: "the same, by a clock that is behind", lost: func(w *world) {
			w.hs.set(func() { w.hs.behind = time.Hour })
			w.onRead(1, func() { w.hs.send(key, alice, membership()) })
		}, kept: true},
		{name: "it came back between the readings", lost: func(w *world) {
			w.onRead(1, func() { w.Joined(someone("2")) })
		}, kept: true},
		{name: "it came back after both", lost: func(w *world) {
			w.onRead(2, func() { w.Joined(someone("2")) })
		}, kept: true},
		{name: "this server goes", lost: func(w *world) {
			w.Joined(someone("2"))
			w.leave(someone("1"))
			w.Left(Key{call, alice + ":" + device}, "2", Shutdown)
		}, kept: true},
		{name: "nobody may write", lost: func(w *world) {
			w.hs.set(func() { w.hs.weak = map[string]bool{alice: true, "": true} })
		}, kept: true},
		{name: "nobody may see", lost: func(w *world) { w.hs.set(func() { w.hs.outside[alice] = true }) }, kept: true},
		{name: "only the sender may see and write", lost: func(w *world) {
			w.hs.set(func() { w.hs.outside = map[string]bool{alice: true} })
		}},
		{name: "only the sender may write", lost: func(w *world) {
			w.hs.set(func() { w.hs.outside[""], w.hs.weak[alice] = false, true })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.options)
				defer func() { w.stop() }()
				if tt.content == "" {
					tt.content = membership()
				}
				if tt.sender == "" {
					tt.sender = alice
				}
				w.Issued(someone(""))
				w.Joined(someone("1"))
				w.pass(time.Second)
				w.hs.send(key, tt.sender, tt.content)
				w.pass(time.Minute)
				w.expectCleared("while it is here", false)
				w.hs.requests()
				w.hs.set(func() { w.hs.reads = 0 })
				if tt.lost == nil {
					tt.lost = func(*world) {}
				}
				switch tt.name {
				case "its next session took over", "this server goes":
				default:
					w.leave(someone("1"))
				}
				tt.lost(w)
				w.pass(8 * time.Second)
				w.expectCleared("8 s later", !tt.kept)
			})
		})
	}
}

// A client that got a token and never connects has 90 s, as has one that announces itself.
func TestNeverConnected(t *testing.T) {
	for name, begin := range map[string]func(w *world){
		"token":      func(w *world) { w.Issued(someone("")); w.hs.send(key, alice, membership()) },
		"event told": func(w *world) { w.hs.send(key, alice, membership()); w.Told(room, w.hs.state[key]) },
		"token again after it was lost": func(w *world) {
			w.Joined(someone("1"))
			w.hs.send(key, alice, membership())
			w.leave(someone("1"))
			w.Issued(someone(""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				defer func() { w.stop() }()
				w.pass(2 * time.Minute)
				begin(w)
				w.pass(89 * time.Second)
				w.expectCleared("after 89 s", false)
				w.pass(3 * time.Second)
				w.expectCleared("after 92 s", true)
				if n := w.disk.size(); n != 0 {
					t.Errorf("%d stays are remembered, want none", n)
				}
			})
		})
	}
}

// The several tokens of one join do not keep the membership of a client that crashes right after it, whether or not it
// was here under its other identity for a moment; those that it gets later do.
func TestTokensOfOneJoin(t *testing.T) {
	twin := someone("twin")
	twin.Member, twin.Identity = alice+":"+device, member.MemberIdentity(alice, device, alice+":"+device)
	for name, tt := range map[string]struct{ twin, again, kept bool }{
		"used":       {twin: true},
		"not used":   {},
		"once again": {again: true, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				defer func() { w.stop() }()
				w.Issued(twin)
				w.Issued(someone(""))
				w.Issued(someone(""))
				w.pass(time.Second)
				if tt.twin {
					w.Joined(twin)
					w.leave(twin)
				}
				w.Joined(someone("1"))
				w.Issued(someone("")) // with the delay fields
				w.hs.send(key, alice, membership())
				w.pass(5 * time.Second)
				if tt.again { // loaded again, before anybody noticed that it had crashed
					w.Issued(twin)
					w.Issued(someone(""))
				}
				w.pass(20 * time.Second)
				w.leave(someone("1"))
				w.pass(7 * time.Second)
				w.expectCleared("7 s after the loss", !tt.kept)
			})
		})
	}
}

// A client that says goodbye may be about to connect anew.
func TestParted(t *testing.T) {
	for _, returns := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			defer func() { w.stop() }()
			w.Joined(someone("1"))
			w.hs.send(key, alice, membership())
			w.pass(time.Minute)
			w.Left(Key{call, alice + ":" + device}, "1", Parted)
			w.pass(14 * time.Second)
			w.expectCleared("14 s after its goodbye", false)
			if returns {
				w.Joined(someone("2"))
			}
			w.pass(2 * time.Second)
			w.expectCleared("16 s after its goodbye", !returns)
		})
	}
}

// A server that goes clears nothing any more, however long it takes.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer func() { w.stop() }()
		bob := Presence{Stay: Stay{room, call, "@b:x", "B"}, Identity: "@b:x:B", Session: "b", Publishes: true}
		w.Issued(someone(""))
		w.Joined(someone("1"))
		w.Joined(bob)
		w.hs.send(key, alice, membership())
		w.pass(time.Hour)
		w.leave(someone("1"))
		w.Left(Key{call, bob.Identity}, "b", Shutdown)
		w.pass(time.Minute)
		w.expectCleared("while it goes", false)
		if n := w.disk.size(); n != 2 {
			t.Errorf("%d stays on disk, want 2", n)
		}
	})
}

// A client that comes, announces itself and goes while its old membership is read is not forgotten.
func TestCameAndWentMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer func() { w.stop() }()
		w.Joined(someone("1"))
		w.pass(10 * time.Second)
		w.hs.send(key, alice, "{}")
		w.leave(someone("1"))
		w.onRead(1, func() {
			w.Joined(someone("2"))
			w.hs.send(key, alice, membership())
			time.Sleep(time.Second)
			w.leave(someone("2"))
		})
		w.pass(15 * time.Second)
		w.expectCleared("after both were gone", true)
	})
}

func TestExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer func() { w.stop() }()
		w.pass(time.Minute)
		w.hs.send(key, alice, membership("14400000", "1000"))
		e := w.hs.state[key]
		w.pass(2 * time.Second)
		w.Joined(someone("1"))
		w.Told(room, e)
		w.pass(time.Minute)
		w.expectCleared("expired, but the client is here", false)
		w.leave(someone("1"))
		w.pass(7 * time.Second)
		w.expectCleared("expired and gone", true)

		w.hs.send(key, alice, membership("14400000", "1000"))
		e = w.hs.state[key]
		w.pass(2 * time.Second)
		w.Told(room, e)
		w.pass(2 * time.Second)
		w.expectCleared("nobody ever came for it", true)
	})
}

// A follower of the oldest member is where that one is.
func TestOldestMember(t *testing.T) {
	for _, ours := range []bool{true, false} {
		t.Run(fmt.Sprint(ours), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				defer func() { w.stop() }()
				first := membership(service, "https://rtc.y/livekit/jwt", `"D"`, `"B"`)
				if ours {
					first = membership(`"D"`, `"B"`)
				}
				w.hs.send("_@b:y_B_m.call", "@b:y", first)
				w.pass(time.Second)
				w.Joined(someone("1"))
				w.hs.send(key, alice, membership("multi_sfu", "oldest_membership"))
				w.pass(time.Minute)
				w.leave(someone("1"))
				w.pass(7 * time.Second)
				w.expectCleared("lost", ours)
			})
		})
	}
}

// A delegated leave goes first; the membership is cleared if it does not arrive.
func TestDelegatedLeaveFirst(t *testing.T) {
	for _, arrives := range []bool{true, false} {
		t.Run(fmt.Sprint(arrives), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				defer func() { w.stop() }()
				w.Joined(someone("1"))
				w.hs.send(key, alice, membership())
				w.pass(time.Minute)
				w.mu.Lock()
				w.leaves[alice+":"+device] = true
				w.mu.Unlock()
				w.leave(someone("1"))
				w.hs.requests()
				w.pass(20 * time.Second)
				w.expectCleared("while the leave is on its way", false)
				if asked := w.hs.requests(); len(asked) != 0 {
					t.Errorf("asked %q meanwhile", asked)
				}
				if arrives {
					w.hs.send(key, alice, "{}")
					w.mu.Lock()
					w.leaves = map[string]bool{}
					w.mu.Unlock()
				}
				w.pass(20 * time.Second)
				w.expectCleared("at the end", true)
				want := []string{"read " + key + " " + alice, "read " + key + " " + alice, "clear " + key + " " + alice}
				if arrives {
					want = want[:1]
				}
				if diff := cmp.Diff(want, w.hs.requests()); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// After a restart clients have 30 s to return; who does not is gone within 60 s.
func TestRestart(t *testing.T) {
	for _, remembered := range []bool{true, false} {
		t.Run(fmt.Sprint("remembered ", remembered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				defer func() { w.stop() }()
				bob := Presence{Stay: Stay{room, call, "@b:x", "B"}, Identity: "@b:x:B", Session: "b", Publishes: true}
				w.Joined(someone("1"))
				w.Joined(bob)
				w.hs.send(key, alice, membership())
				w.hs.send("_@b:x_B_m.call", "@b:x", membership(`"D"`, `"B"`, "@a:x:D", "@b:x:B"))
				w.pass(2 * time.Minute)
				w.stop()
				if n := w.disk.size(); n != 2 {
					t.Fatalf("%d stays on disk, want 2", n)
				}
				if !remembered {
					w.disk.records = map[Stay]Record{}
					w.hs.outside[""] = false
				}
				w.start(nil)
				w.pass(20 * time.Second)
				bob.Session = "b2"
				w.Joined(bob)
				w.pass(9 * time.Second)
				w.expectCleared("before clients had their time", false)
				w.pass(3 * time.Second)
				w.expectCleared("after that", true)
				w.pass(time.Minute)
				if w.hs.empty("_@b:x_B_m.call") {
					t.Error("the membership of one who came back was cleared")
				}
				if n := w.disk.size(); n != 1 {
					t.Errorf("%d stays on disk, want that of one", n)
				}
			})
		})
	}
}

// A homeserver that is down is asked with longer and longer pauses, and memberships are cleared once it is back.
func TestHomeserverDown(t *testing.T) {
	for name, fail := range map[string]error{
		"no answer": &homeserver.Error{Op: "test", Err: errors.New("refused")},
		"5xx":       failure(502, ""),
		"limited":   failure(429, "M_LIMIT_EXCEEDED"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				defer func() { w.stop() }()
				w.Joined(someone("1"))
				w.hs.send(key, alice, membership())
				w.pass(time.Minute)
				w.hs.requests()
				w.hs.set(func() { w.hs.fail = fail })
				w.leave(someone("1"))
				w.pass(10 * time.Minute)
				if n := len(w.hs.requests()); n < 10 || n > 30 {
					t.Errorf("%d requests in 10 minutes, want some, and few", n)
				}
				w.hs.set(func() { w.hs.fail = nil })
				w.pass(time.Minute + time.Second)
				w.expectCleared("when it is back", true)
			})
		})
	}
}

// Many who go at once are dealt with a few at a time.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer func() { w.stop() }()
		var now, most int
		var mu sync.Mutex
		w.hs.onRead = func(int) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			now--
			mu.Unlock()
		}
		var all []Presence
		for i := range 500 {
			user := fmt.Sprintf("@u%d:x", i)
			p := Presence{Stay: Stay{room, call, user, "D"}, Identity: user + ":D", Session: user, Publishes: true}
			w.Joined(p)
			w.hs.send("_"+user+"_D_m.call", user, membership("@a:x", user))
			all = append(all, p)
		}
		w.pass(time.Minute)
		for _, p := range all {
			w.leave(p)
		}
		w.pass(10 * time.Second)
		for _, p := range all {
			if !w.hs.empty("_" + p.User + "_D_m.call") {
				t.Fatalf("the membership of %s is still there", p.User)
			}
		}
		if most > atOnce {
			t.Errorf("%d requests at a time, want at most %d", most, atOnce)
		}
		if s := w.Stats(); s.Cleared != 500 || s.Stays != 0 || s.TimesWithheld != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}
