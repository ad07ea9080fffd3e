package member

import (
	"encoding/json"
	"testing"
	"time"
)

// What we declare is what we read.
func TestDeclare(t *testing.T) {
	key, content := Declare(Declaration{User: "@bob:example.org", Device: "CALLBRIDGE", Room: "!room:example.org", Service: "https://rtc.example.org/livekit/jwt", Intent: "video"})
	raw, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	sent := time.UnixMilli(1_750_000_000_000)
	m, err := Parse(Event{Type: TypeState, StateKey: &key, Sender: "@bob:example.org", ID: "$e", Content: raw, Sent: sent})
	if err != nil {
		t.Fatal(err)
	}
	if key != "_@bob:example.org_CALLBRIDGE_m.call" || m.Identity() != "@bob:example.org:CALLBRIDGE" || m.Slot != SlotRoom || m.Intent != "video" || m.Oldest {
		t.Errorf("%s: %+v", key, m)
	}
	if !m.Created.Equal(sent) || !m.Expires.Equal(sent.Add(4*time.Hour)) || len(m.Published) != 1 || m.Published[0].Service != "https://rtc.example.org/livekit/jwt" {
		t.Errorf("%+v", m)
	}
}

func TestNewRing(t *testing.T) {
	now := time.UnixMilli(1_750_000_000_000)
	raw, err := json.Marshal(NewRing("@alice:example.org", "$member", "audio", now, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	n, err := ParseNotification(Event{Type: TypeNotification, Sender: "@bob:example.org", ID: "$ring", Content: raw, Sent: now})
	if err != nil || !n.Ring || n.Member != "$member" || n.Intent != "audio" || n.Room || len(n.Users) != 1 || n.Users[0] != "@alice:example.org" {
		t.Errorf("%+v, %v", n, err)
	}
	if want := now.Add(90 * time.Second); !n.Expires.Equal(want) {
		t.Errorf("it rings until %s, want %s", n.Expires, want)
	}
	raw, err = json.Marshal(NewRefusal("$ring"))
	if err != nil || string(raw) != `{"m.relates_to":{"rel_type":"m.reference","event_id":"$ring"}}` {
		t.Errorf("%s, %v", raw, err)
	}
}
