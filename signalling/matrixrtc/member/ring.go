package member

import (
	"encoding/json"
	"fmt"
	"time"
)

// The types of the other events of a call, as they are sent today and as they will be called.
const (
	TypeSlot               = "org.matrix.msc4143.rtc.slot"
	TypeSlotStable         = "m.rtc.slot"
	TypeNotification       = "org.matrix.msc4075.rtc.notification"
	TypeNotificationStable = "m.rtc.notification"
	TypeDecline            = "org.matrix.msc4310.rtc.decline"
	TypeDeclineStable      = "m.rtc.decline"
)

// Limits of a ring (MSC4075).
const (
	defaultRing = 30 * time.Second
	maxRing     = 90 * time.Second // as clients cap it
	maxSkew     = 20 * time.Second // of sender_ts against the server's clock, beyond which the latter counts
)

// A Slot is a place for a call in a room. No client opens one today; a closed one means that no call is wanted.
type Slot struct {
	ID          string
	Open        bool
	Application string
}

// ParseSlot reads a slot event; one that cannot be read, or is empty, is not open.
func ParseSlot(e Event) (Slot, error) {
	if e.Type != TypeSlot && e.Type != TypeSlotStable || e.StateKey == nil {
		return Slot{}, fmt.Errorf("%w: it is no slot", ErrNotMember)
	}
	var c struct {
		Status      text `json:"status"`
		Application struct {
			Type text `json:"type"`
		} `json:"application"`
	}
	_, err := decode(e.Content, &c)
	return Slot{ID: *e.StateKey, Open: c.Status == "open", Application: string(c.Application.Type)}, err
}

// A Notification rings, or tells quietly, that a call has begun.
type Notification struct {
	Event   string // id of the event, which a decline refers to
	Member  string // id of the membership event of the caller
	Sender  string
	Ring    bool
	Intent  string
	Room    bool     // everybody is meant
	Users   []string // who is meant besides
	Expires time.Time
}

// relation is m.relates_to.
type relation struct {
	Type  text `json:"rel_type"`
	Event text `json:"event_id"`
}

func (r relation) reference() string {
	if r.Type != "m.reference" {
		return ""
	}
	return string(r.Event)
}

// ParseNotification reads a ring (MSC4075), whose fields the newest text nests below application.
func ParseNotification(e Event) (Notification, error) {
	if e.Type != TypeNotification && e.Type != TypeNotificationStable {
		return Notification{}, fmt.Errorf("%w: it is no notification", ErrNotMember)
	}
	type fields struct {
		Kind     text   `json:"notification_type"`
		Sent     number `json:"sender_ts"`
		Lifetime number `json:"lifetime"`
		Intent   text   `json:"m.call.intent"`
	}
	var c struct {
		fields
		Application fields   `json:"application"`
		Relates     relation `json:"m.relates_to"`
		Mentions    struct {
			Room  json.RawMessage `json:"room"`
			Users []text          `json:"user_ids"`
		} `json:"m.mentions"`
	}
	if _, err := decode(e.Content, &c); err != nil {
		return Notification{}, err
	}
	f := c.fields
	if f.Kind == "" {
		f = c.Application
	}
	if f.Kind != "ring" && f.Kind != "notification" {
		return Notification{}, fmt.Errorf("%w: no notification_type that is known", ErrNotMember)
	}
	life := defaultRing
	if f.Lifetime > 0 {
		life = min(f.Lifetime.duration(), maxRing)
	}
	from := e.Sent
	if sent := f.Sent.time(); f.Sent > 0 && sent.Sub(e.Sent).Abs() <= maxSkew {
		from = sent
	}
	n := Notification{
		Event: e.ID, Member: c.Relates.reference(), Sender: e.Sender, Ring: f.Kind == "ring", Intent: string(f.Intent),
		Room: string(c.Mentions.Room) == "true", Expires: from.Add(life),
	}
	for _, user := range c.Mentions.Users {
		if user != "" {
			n.Users = append(n.Users, string(user))
		}
	}
	return n, nil
}

// ParseDecline returns the id of the notification that the sender declines (MSC4310).
func ParseDecline(e Event) (string, error) {
	if e.Type != TypeDecline && e.Type != TypeDeclineStable {
		return "", fmt.Errorf("%w: it is no decline", ErrNotMember)
	}
	var c struct {
		Relates relation `json:"m.relates_to"`
	}
	if _, err := decode(e.Content, &c); err != nil {
		return "", err
	}
	if c.Relates.reference() == "" {
		return "", fmt.Errorf("%w: it refers to no notification", ErrNotMember)
	}
	return c.Relates.reference(), nil
}
