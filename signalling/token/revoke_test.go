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
	later := now.Add(2 * revokedLife)
	r.Revoke("@a:example.org", "!r", later)
	if len(r.cuts) != 1 {
		t.Errorf("%d are remembered, want the one of the last hours", len(r.cuts))
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
