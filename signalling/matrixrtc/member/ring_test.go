package member

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseNotification(t *testing.T) {
	ms := sent.UnixMilli()
	ring := func(changes map[string]any) string {
		return changed(map[string]any{
			"m.mentions":        map[string]any{"user_ids": []any{}, "room": true},
			"notification_type": "ring", "m.relates_to": map[string]any{"rel_type": "m.reference", "event_id": "$member"},
			"sender_ts": ms + 1000, "lifetime": 30000, "m.call.intent": "audio",
		}, changes)
	}
	base := Notification{Event: "$1", Member: "$member", Sender: alice, Ring: true, Intent: "audio", Room: true, Expires: sent.Add(31 * time.Second)}
	change := func(f func(*Notification)) *Notification { n := base; f(&n); return &n }
	for _, tt := range []struct {
		name, content string
		want          *Notification
	}{
		{"as sent today", ring(nil), &base},
		{"quiet", ring(map[string]any{"notification_type": "notification"}), change(func(n *Notification) { n.Ring = false })},
		{"a wrong clock", ring(map[string]any{"sender_ts": ms - 21_000}), change(func(n *Notification) { n.Expires = sent.Add(30 * time.Second) })},
		{"too long", ring(map[string]any{"lifetime": 3600_000, "sender_ts": ms}), change(func(n *Notification) { n.Expires = sent.Add(90 * time.Second) })},
		{"no lifetime", ring(map[string]any{"lifetime": nil, "sender_ts": nil}), change(func(n *Notification) { n.Expires = sent.Add(30 * time.Second) })},
		{"somebody", ring(map[string]any{"m.mentions": map[string]any{"user_ids": []any{"@bob:example.org", 5}}}),
			change(func(n *Notification) { n.Room, n.Users = false, []string{"@bob:example.org"} })},
		{"nested", ring(map[string]any{"notification_type": nil, "sender_ts": nil, "lifetime": nil, "m.call.intent": nil,
			"application": map[string]any{"notification_type": "ring", "lifetime": 31000, "m.call.intent": "audio"}}), &base},
		{"no reference", ring(map[string]any{"m.relates_to": map[string]any{"rel_type": "m.thread", "event_id": "$x"}}), change(func(n *Notification) { n.Member = "" })},
		{"no type", ring(map[string]any{"notification_type": nil}), nil},
		{"no JSON", `{`, nil},
	} {
		got, err := ParseNotification(Event{Type: TypeNotification, Sender: alice, ID: "$1", Content: json.RawMessage(tt.content), Sent: sent})
		if tt.want == nil {
			if !errors.Is(err, ErrNotMember) {
				t.Errorf("%s: error is %v", tt.name, err)
			}
			continue
		}
		if d := cmp.Diff(*tt.want, got); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", tt.name, err, d)
		}
	}
}

func TestParseDecline(t *testing.T) {
	for _, tt := range []struct{ kind, content, want string }{
		{TypeDecline, `{"m.relates_to":{"rel_type":"m.reference","event_id":"$ring"}}`, "$ring"},
		{TypeDeclineStable, `{"m.relates_to":{"rel_type":"m.reference","event_id":"$ring"}}`, "$ring"},
		{TypeDecline, `{"m.relates_to":{"rel_type":"m.annotation","event_id":"$ring"}}`, ""},
		{TypeDecline, `{}`, ""},
		{TypeDecline, `5`, ""},
		{TypeSlot, `{"m.relates_to":{"rel_type":"m.reference","event_id":"$ring"}}`, ""},
	} {
		got, err := ParseDecline(Event{Type: tt.kind, Content: json.RawMessage(tt.content)})
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s %s: %q, %v", tt.kind, tt.content, got, err)
		}
	}
}

func TestParseSlot(t *testing.T) {
	id := SlotRoom
	for _, tt := range []struct {
		content string
		want    Slot
		fails   bool
	}{
		{`{"status":"open","application":{"type":"m.call"},"encryption":{"type":"m.per_member"}}`, Slot{SlotRoom, true, "m.call"}, false},
		{`{"status":"closed"}`, Slot{ID: SlotRoom}, false},
		{`{}`, Slot{ID: SlotRoom}, false},
		{`[]`, Slot{ID: SlotRoom}, true},
	} {
		got, err := ParseSlot(Event{Type: TypeSlot, StateKey: &id, Content: json.RawMessage(tt.content)})
		if got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%s: %+v, %v", tt.content, got, err)
		}
	}
	if _, err := ParseSlot(Event{Type: TypeSlot}); err == nil {
		t.Error("a slot without state key")
	}
}

func FuzzParseRing(f *testing.F) {
	f.Add([]byte(`{"notification_type":"ring","lifetime":30000,"sender_ts":5,"m.relates_to":{"rel_type":"m.reference","event_id":"$x"}}`))
	f.Add([]byte(`{"m.mentions":{"user_ids":["@a:b"],"room":true},"application":{"notification_type":"ring"}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		id := "x"
		if n, err := ParseNotification(Event{Type: TypeNotification, Content: content, Sent: sent}); err == nil && n.Expires.Sub(sent) > maxRing+maxSkew {
			t.Errorf("rings until %v", n.Expires)
		}
		_, _ = ParseDecline(Event{Type: TypeDecline, Content: content})
		_, _ = ParseSlot(Event{Type: TypeSlot, StateKey: &id, Content: content})
	})
}
