package turn

import (
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// The scheme is that of Synapse and Dendrite, byte for byte.
func TestSharedPassword(t *testing.T) {
	// printf '1433895918:@alice:example.org' | openssl dgst -sha1 -hmac 'n0t4ctualLy' -binary | base64
	if got, want := sharedPassword([]byte("n0t4ctualLy"), "1433895918:@alice:example.org"), "r0oYC92fOxS3JdiK2H1PpDy3NGE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestCredentials allocates with credentials that must not do.
func TestCredentials(t *testing.T) {
	w := start(t, host, Options{})
	now := time.Now()
	good := shared("@alice:example.org", now.Add(time.Hour))
	for name, tc := range map[string]struct {
		credential Credential
		realm      string
		want       stun.ErrorCode
		counted    string
	}{
		"right":                       {credential: good},
		"of a join":                   {credential: w.Credential("PA_one", now)},
		"expired":                     {credential: shared("@alice:example.org", now.Add(-time.Second)), want: stun.CodeUnauthorized, counted: "expired"},
		"of a join, expired":          {credential: w.Credential("PA_one", now.Add(-JoinLife-time.Second)), want: stun.CodeUnauthorized, counted: "expired"},
		"forged":                      {credential: sharedBy("another secret", "@alice:example.org", now.Add(time.Hour)), want: stun.CodeUnauthorized, counted: "forged"},
		"with more time":              {credential: Credential{"9" + good.Username, good.Password}, want: stun.CodeUnauthorized, counted: "forged"},
		"of another user":             {credential: Credential{strings.Replace(good.Username, "alice", "admin", 1), good.Password}, want: stun.CodeUnauthorized, counted: "forged"},
		"of a join by the homeserver": {credential: shared(joinMark+"PA_one", now.Add(time.Hour)), want: stun.CodeUnauthorized, counted: "forged"},
		"join of another process":     {credential: start(t, host, Options{}).Credential("PA_one", now), want: stun.CodeUnauthorized, counted: "forged"},
		"without a time":              {credential: Credential{"alice", "secret"}, want: stun.CodeUnauthorized, counted: "unknown_user"},
		"without a name":              {credential: shared("", now.Add(time.Hour)), want: stun.CodeUnauthorized, counted: "unknown_user"},
		"with a long name":            {credential: shared(strings.Repeat("x", maxName+1), now.Add(time.Hour)), want: stun.CodeUnauthorized, counted: "unknown_user"},
		"in a wrong realm":            {credential: good, realm: "example.org", want: stun.CodeUnauthorized, counted: "unknown_user"},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.Stats().Refused[tc.counted]
			c := w.udp(tc.credential)
			c.realm = tc.realm
			if _, got := c.allocate(); got != tc.want {
				t.Errorf("answered %d, want %d", got, tc.want)
			}
			if got := w.Stats().Refused[tc.counted] - before; tc.want != 0 && got != 1 {
				t.Errorf("%d counted as %s, want 1", got, tc.counted)
			}
		})
	}
	t.Run("no homeserver", func(t *testing.T) {
		w := start(t, host, Options{Secrets: []string{}})
		if _, got := w.udp(sharedBy("", "@alice:example.org", now.Add(time.Hour))).allocate(); got != stun.CodeUnauthorized {
			t.Errorf("answered %d without a secret", got)
		}
	})
	t.Run("nonce of somebody else", func(t *testing.T) {
		c := w.udp(good)
		c.nonce, c.told = "0123456789abcdef0123456789", realm
		if got := code(c.once(stun.MethodAllocate, transport(17))); got != stun.CodeStaleNonce {
			t.Errorf("answered %d, want %d", got, stun.CodeStaleNonce)
		}
	})
	t.Run("none", func(t *testing.T) {
		if got := code(w.udp(Credential{}).once(stun.MethodAllocate, transport(17))); got != stun.CodeUnauthorized {
			t.Errorf("answered %d without a credential", got)
		}
	})
}

// An allocation outlives its credential: a call is not cut off after an hour. But no other is made with it, and a day is the end.
func TestAllocationOutlivesCredential(t *testing.T) {
	var passed atomic.Int64
	w := start(t, host, Options{clock: func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }})
	c := w.udp(shared("@alice:example.org", time.Now().Add(time.Minute)))
	c.mustAllocate()
	passed.Store(int64(time.Hour))
	if got := code(c.ask(stun.MethodRefresh)); got != 0 {
		t.Errorf("refresh after the credential's time: %d", got)
	}
	if got := c.permit(netip.MustParseAddr("8.8.8.8")); got != 0 {
		t.Errorf("permission after the credential's time: %d", got)
	}
	if _, got := w.udp(c.credential).allocate(); got != stun.CodeUnauthorized {
		t.Errorf("another allocation: %d, want %d", got, stun.CodeUnauthorized)
	}
	passed.Store(int64(maxAge + time.Minute))
	w.age()
	for len(w.ledger.live()) > 0 { // pion lets go of it in a goroutine of its own
		runtime.Gosched()
	}
	if got := code(c.ask(stun.MethodRefresh)); got == 0 {
		t.Error("refreshed after a day")
	}
}

// A homeserver changes its secret: for a while both let its users in, over UDP and TCP.
func TestRotation(t *testing.T) {
	w := start(t, host, Options{Secrets: []string{"new", "old", "older"}})
	until := time.Now().Add(time.Hour)
	for i, secret := range []string{"new", "old", "older"} {
		if _, got := w.udp(sharedBy(secret, "@alice:example.org", until)).allocate(); got != 0 {
			t.Errorf("secret %d over UDP: %d", i, got)
		}
		until = until.Add(time.Second) // usernames of one second and user are the same
		if _, got := w.stream(sharedBy(secret, "@alice:example.org", until)).allocate(); got != 0 {
			t.Errorf("secret %d over TCP: %d", i, got)
		}
		until = until.Add(time.Second)
	}
	if _, got := w.udp(sharedBy("oldest", "@alice:example.org", until)).allocate(); got != stun.CodeUnauthorized {
		t.Errorf("a secret that is no more: %d", got)
	}
}

func TestScanner(t *testing.T) {
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("test"))
	for name, tc := range map[string]struct {
		stream string
		want   int
	}{
		"messages":        {string(binding.Raw) + string(binding.Raw), 2},
		"with channels":   {"\x40\x00\x00\x05hello\x00\x00\x00" + string(binding.Raw) + "\x7f\xff\x00\x00" + string(binding.Raw), 2},
		"something else":  {"\xff" + string(binding.Raw), 0},
		"too long a one":  {"\x00\x01\xff\xff" + string(binding.Raw), 0},
		"cut":             {string(binding.Raw[:24]), 0},
		"nothing":         {"", 0},
		"then the peer's": {string(binding.Raw) + "\x80\x00\x00\x00" + string(binding.Raw), 1},
	} {
		for _, piece := range []int{1, 3, 1000} {
			var s scanner
			found := 0
			for rest := []byte(tc.stream); len(rest) > 0; {
				n := min(piece, len(rest))
				s.scan(rest[:n], func(m []byte) {
					if string(m) == string(binding.Raw) {
						found++
					}
				})
				rest = rest[n:]
			}
			if found != tc.want {
				t.Errorf("%s in pieces of %d: found %d, want %d", name, piece, found, tc.want)
			}
		}
	}
}
