package token

import (
	"fmt"
	"testing"
	"time"
)

func TestRevocations(t *testing.T) {
	kicked := time.Date(2026, 11, 23, 12, 0, 0, 500e6, time.UTC)
	const alice, room = "@alice:example.org", "!room:example.org"
	r := &Revocations{}
	r.Revoke(alice, room, kicked)
	for _, tc := range []struct {
		name   string
		origin Origin
		want   bool
	}{
		{"verified before", Origin{User: alice, Conversation: room, Verified: kicked.Add(-time.Hour)}, true},
		{"in the same moment", Origin{User: alice, Conversation: room, Verified: kicked}, true},
		{"verified anew, in the same second", Origin{User: alice, Conversation: room, Verified: kicked.Add(time.Millisecond)}, false},
		{"another room", Origin{User: alice, Conversation: "!other:example.org", Verified: kicked.Add(-time.Hour)}, false},
		{"another user", Origin{User: "@bob:example.org", Conversation: room, Verified: kicked.Add(-time.Hour)}, false},
		{"not issued by us", Origin{}, false},
	} {
		if got := r.Revoked(tc.origin); got != tc.want {
			t.Errorf("%s: revoked %v, want %v", tc.name, got, tc.want)
		}
	}
	var none *Revocations
	if none.Revoked(Origin{User: alice, Conversation: room, Verified: kicked}) || (&Revocations{}).Revoked(Origin{User: alice, Conversation: room, Verified: kicked}) {
		t.Error("something is revoked although nothing was")
	}
}

func TestRevocationsAreBounded(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	old := Origin{User: "@0:example.org", Conversation: "!r", Verified: now}
	r := &Revocations{}
	for i := range maxRevoked + 1 {
		r.Revoke(fmt.Sprintf("@%d:example.org", i), "!r", now)
	}
	if len(r.cuts) > maxRevoked {
		t.Errorf("%d are remembered, at most %d", len(r.cuts), maxRevoked)
	}
	if !r.Revoked(old) {
		t.Error("what was revoked is valid again, as there was no room to remember it")
	}
	if r.Revoked(Origin{User: "@new:example.org", Conversation: "!r", Verified: now.Add(time.Second)}) {
		t.Error("what was verified later is revoked")
	}
	later := now.Add(2 * RevokedLife)
	r.Revoke("@a:example.org", "!r", later)
	if len(r.cuts) != 1 {
		t.Errorf("%d are remembered, want the one of the last hours", len(r.cuts))
	}
}

// What one run revoked is worthless in the next; what was taken is not told again.
func TestRevocationsAreKept(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	first := &Revocations{}
	first.Revoke("@before:example.org", "!r", now) // nobody keeps it
	changed := first.Keep([]Revocation{{"@old:example.org", "!r", now.Add(-RevokedLife - time.Second)}, {"@former:example.org", "!r", now.Add(-time.Hour)}}, now)
	if len(first.Take()) > 0 || len(changed) > 0 {
		t.Error("what was kept already is to be kept again")
	}
	for i := range 3 {
		first.Revoke("@a:example.org", "!r", now.Add(time.Duration(i)*time.Second))
	}
	first.Revoke("@b:example.org", "!r", now)
	if len(changed) != 1 {
		t.Error("nobody is told")
	}
	kept := first.Take()
	if len(kept) != 2 || len(first.Take()) > 0 {
		t.Errorf("kept is %v, want the latest of two places, once", kept)
	}

	second := &Revocations{}
	second.Keep(kept, now.Add(time.Minute))
	for _, tc := range []struct {
		revocations *Revocations
		origin      Origin
		want        bool
	}{
		{first, Origin{User: "@old:example.org", Conversation: "!r", Verified: now.Add(-3 * time.Hour)}, false},
		{first, Origin{User: "@former:example.org", Conversation: "!r", Verified: now.Add(-2 * time.Hour)}, true},
		{second, Origin{User: "@a:example.org", Conversation: "!r", Verified: now.Add(2 * time.Second)}, true},
		{second, Origin{User: "@a:example.org", Conversation: "!r", Verified: now.Add(3 * time.Second)}, false},
		{second, Origin{User: "@b:example.org", Conversation: "!r", Verified: now}, true},
		{second, Origin{User: "@c:example.org", Conversation: "!r", Verified: now}, false},
	} {
		if got := tc.revocations.Revoked(tc.origin); got != tc.want {
			t.Errorf("%v: revoked %v, want %v", tc.origin, got, tc.want)
		}
	}

	// When there is no room, all that is kept is that everything up to now is revoked.
	for i := range maxRevoked {
		second.Revoke(fmt.Sprintf("@%d:example.org", i), "!r", now.Add(time.Hour))
	}
	kept = second.Take()
	third := &Revocations{}
	third.Keep(kept, now.Add(time.Hour))
	if len(kept) > 10 || !third.Revoked(Origin{User: "@7:example.org", Conversation: "!r", Verified: now.Add(time.Hour)}) {
		t.Errorf("%d are kept, and they do not hold", len(kept))
	}
}

func TestOriginTravels(t *testing.T) {
	keys := Keys{"k": "secret"}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	g := Join("room", "alice")
	g.Origin = Origin{
		User: "@alice:example.org", Conversation: "!room:example.org", Device: "D", Member: "m1", Assumed: true, Verified: now.Add(-123 * time.Millisecond),
	}
	for _, full := range []bool{false, true} {
		g.FullAccess = full
		raw, err := keys.Mint("k", g, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keys.Verify(raw, now)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = keys.Refresh(got, now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		again, err := keys.Verify(raw, now.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []Origin{got.Origin, again.Origin} {
			if !o.Verified.Equal(g.Origin.Verified) {
				t.Errorf("full access %v: verified %v, want %v", full, o.Verified, g.Origin.Verified)
			}
			if o.Verified = g.Origin.Verified; o != g.Origin {
				t.Errorf("full access %v: origin %v, want %v", full, o, g.Origin)
			}
		}
		if again.FullAccess != full {
			t.Errorf("full access is %v, want %v", again.FullAccess, full)
		}
	}
	g.Origin.User = "\xff"
	if _, err := keys.Mint("k", g, time.Hour, now); err == nil {
		t.Error("an origin that is not UTF-8 passes")
	}
}
