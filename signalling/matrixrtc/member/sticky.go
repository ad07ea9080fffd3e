package member

import (
	"encoding/json"
	"fmt"
	"time"
)

// A stickyContent is the content of m.rtc.member in its three dialects: Element Call until the summer of 2026
// (rtc_transports), since then (transports.published), and the text of MSC4143 (no device, sticky_key, membership).
type stickyContent struct {
	Slot        text `json:"slot_id"`
	Application struct {
		Type   text `json:"type"`
		Intent text `json:"m.call.intent"`
	} `json:"application"`
	Member struct {
		ID            text `json:"id"`
		User          text `json:"user_id"`
		Device        text `json:"device_id"`
		ClaimedUser   text `json:"claimed_user_id"`
		ClaimedDevice text `json:"claimed_device_id"`
		Membership    text `json:"membership"`
	} `json:"member"`
	Membership text `json:"membership"`

	Former     []focus `json:"rtc_transports"`
	Transports struct {
		Published []focus `json:"published"`
	} `json:"transports"`

	KeyUnstable text `json:"msc4354_sticky_key"`
	Key         text `json:"sticky_key"`
}

// keys are the fields that a leave of a shipped client has: nothing but the sticky key.
var keys = []string{"msc4354_sticky_key", "sticky_key"}

func parseSticky(e Event) (*Member, error) {
	if e.StateKey != nil {
		return nil, fmt.Errorf("%w: it is state", ErrNotMember)
	}
	var c stickyContent
	empty, err := decode(e.Content, &c)
	if err != nil {
		return nil, err
	}
	if empty || onlyKey(e.Content) || c.Member.Membership == "leave" || c.Membership == "leave" {
		return nil, ErrLeft
	}
	device, user := c.Member.Device, c.Member.User
	if device == "" {
		device = c.Member.ClaimedDevice
	}
	if user == "" {
		user = c.Member.ClaimedUser
	}
	switch {
	case c.Slot == "" || c.Member.ID == "":
		return nil, fmt.Errorf("%w: slot_id or member.id is missing", ErrNotMember)
	case user != "" && string(user) != e.Sender:
		return nil, fmt.Errorf("%w: it names %.300q", ErrForeign, string(user))
	}
	m := &Member{
		User: e.Sender, Device: string(device), ID: string(c.Member.ID), Key: string(c.Key),
		Slot: string(c.Slot), Intent: string(c.Application.Intent),
		Event: e.ID, Created: e.Sent, Expires: stickyEnd(e), unlinked: device == "",
	}
	if m.Key == "" {
		m.Key = string(c.KeyUnstable)
	}
	if m.Key == "" {
		m.Key = m.ID
	}
	published := c.Transports.Published
	if len(published) == 0 {
		published = c.Former
	}
	for _, f := range published {
		if f.Type != "" {
			m.Published = append(m.Published, f.transport())
		}
	}
	return m, nil
}

// stickyEnd is MSC4354: the earlier of sent and received, and never more than an hour after it.
func stickyEnd(e Event) time.Time {
	from := e.Sent
	if !e.Received.IsZero() && e.Received.Before(from) {
		from = e.Received
	}
	life := maxSticky
	if e.Sticky > 0 {
		life = min(life, e.Sticky)
	}
	return from.Add(life)
}

// StickyKey is what a leave of a sticky membership names: the entry that it empties. It is empty if there is none.
func StickyKey(content json.RawMessage) string {
	var c stickyContent
	if _, err := decode(content, &c); err != nil {
		return ""
	}
	if c.Key != "" {
		return string(c.Key)
	}
	return string(c.KeyUnstable)
}

func onlyKey(content json.RawMessage) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(content, &fields) != nil {
		return false
	}
	for _, k := range keys {
		delete(fields, k)
	}
	return len(fields) == 0
}
