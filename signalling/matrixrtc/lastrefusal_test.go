package matrixrtc

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"callserver/sfu"
	"callserver/signalling"
)

// Every reason has words for people.
func TestWords(t *testing.T) {
	for _, r := range reasons {
		if words[r] == "" && r != reasonDelegation { // which keeps nobody out
			t.Errorf("%s has no words", r)
		}
	}
}

// The last refusal of a user is known for a day; requests that prove nobody are nobody's.
func TestLastRefusal(t *testing.T) {
	w := newWorld(t, nil)
	if r, ok := w.LastRefusal("@alice:example.org"); ok {
		t.Errorf("at first: %+v", r)
	}
	expect(t, w.do(t, "POST", "/get_token", getTokenBody("foreign", "@alice:example.org")), 401, "M_UNAUTHORIZED")
	if r, ok := w.LastRefusal("@alice:example.org"); ok {
		t.Errorf("a request that anybody may have sent: %+v", r)
	}
	w.calls.refuse = fmt.Errorf("refused: %w", &signalling.Error{Code: signalling.NotAllowed, Text: "the call is locked", Err: sfu.ErrRoomLocked})
	expect(t, w.do(t, "POST", "/sfu/get", sfuGetBody("T")), 403, "M_FORBIDDEN")
	want := Refusal{
		At: w.options.Now(), Reason: "locked", Words: words[reasonLocked],
		Room: "!abc:example.org", Device: "DEVICE", Addr: netip.MustParseAddr("8.8.8.8"),
	}
	got, ok := w.LastRefusal("@alice:example.org")
	if !ok || got.At.Sub(want.At).Abs() > time.Minute {
		t.Fatalf("%+v, %v; want %+v", got, ok, want)
	}
	if got.At = want.At; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := w.Stats().Refusals["locked"]; n != 1 {
		t.Errorf("%d counted as locked", n)
	}
}
