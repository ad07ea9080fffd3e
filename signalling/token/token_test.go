package token

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestRoundTrip(t *testing.T) {
	keys := Keys{"devkey": "secret"}
	want := Join("room", "@alice:example.org:DEV/+ é")
	want.FullAccess = true
	raw, err := keys.Mint("devkey", want, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := keys.Verify(raw, now)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreTypes(Validity{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("minted (-), verified (+):\n%s", d)
	}
}
