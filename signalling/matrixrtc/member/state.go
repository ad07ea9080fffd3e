package member

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A stateContent is the content of org.matrix.msc3401.call.member, the form since 2024.
type stateContent struct {
	Application text    `json:"application"`
	CallID      *text   `json:"call_id"`
	Scope       text    `json:"scope"`
	Device      text    `json:"device_id"`
	ID          text    `json:"membershipID"`
	Expires     number  `json:"expires"`
	Created     number  `json:"created_ts"`
	Intent      text    `json:"m.call.intent"`
	Active      focus   `json:"focus_active"`
	Preferred   []focus `json:"foci_preferred"`

	Memberships json.RawMessage `json:"memberships"` // the form of 2023
	Calls       json.RawMessage `json:"m.calls"`     // MSC3401
}

type focus struct {
	Type      text `json:"type"`
	Selection text `json:"focus_selection"`
	Service   text `json:"livekit_service_url"`
	URL       text `json:"url"`
}

func (f focus) transport() Transport {
	return Transport{
		Type:    string(f.Type),
		Service: strings.TrimRight(string(f.Service), "/"),
		URL:     strings.TrimRight(string(f.URL), "/"),
	}
}

func parseState(e Event) (*Member, error) {
	if e.StateKey == nil {
		return nil, fmt.Errorf("%w: it has no state key", ErrNotMember)
	}
	var c stateContent
	empty, err := decode(e.Content, &c)
	switch {
	case err != nil:
		return nil, err
	case empty:
		return nil, ErrLeft
	case c.Memberships != nil || c.Calls != nil:
		return nil, fmt.Errorf("%w: it is in a form that no client reads any more", ErrNotMember)
	case c.Device == "" || c.Application == "" || c.CallID == nil || c.Active.Type == "":
		return nil, fmt.Errorf("%w: device_id, call_id, application or focus_active is missing", ErrNotMember)
	}
	if user, named := UserOf(*e.StateKey); named && user != e.Sender {
		return nil, fmt.Errorf("%w: the state key is %.300q", ErrForeign, *e.StateKey)
	}
	m := &Member{
		User: e.Sender, Device: string(c.Device), ID: string(c.ID), Key: *e.StateKey,
		Slot: slot(string(c.Application), string(*c.CallID)), Intent: string(c.Intent),
		Event: e.ID, State: true, Created: e.Sent,
		Oldest: c.Active.Selection == "oldest_membership",
	}
	if m.ID == "" {
		m.ID = DeviceIdentity(m.User, m.Device)
	}
	// Nobody joined before the event that says so was sent: what lies in the future is a wrong clock.
	if created := c.Created.time(); c.Created > 0 && created.Before(e.Sent) {
		m.Created = created
	}
	life := defaultLife
	if c.Expires > 0 {
		life = c.Expires.duration()
	}
	m.Expires = m.Created.Add(life)
	for _, f := range c.Preferred {
		if f.Type != "" {
			m.Published = append(m.Published, f.transport())
		}
	}
	return m, nil
}

// slot is the slot that an application and a call id mean.
func slot(application, call string) string {
	if call == "" {
		call = "ROOM"
	}
	return application + "#" + call
}

// text is a string in JSON; anything else counts as absent.
type text string

func (t *text) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		*t = text(s)
	}
	return nil
}

// number is a count of milliseconds in JSON, 0 if it is none or negative, and at most that of the year 5138.
type number int64

const maxNumber = 1e14

func (n *number) UnmarshalJSON(raw []byte) error {
	var f float64
	if json.Unmarshal(raw, &f) == nil && f > 0 {
		*n = number(min(f, maxNumber))
	}
	return nil
}

func (n number) time() time.Time { return time.UnixMilli(int64(n)) }

func (n number) duration() time.Duration {
	return min(maxLife, time.Duration(min(int64(n), maxLife.Milliseconds()))*time.Millisecond)
}

// decode reads an object into c and reports whether it is empty. Fields of a wrong type fail only where they are objects.
func decode(content json.RawMessage, c any) (empty bool, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(content, &fields); err != nil || fields == nil {
		return false, fmt.Errorf("%w: its content is no object", ErrNotMember)
	}
	if len(fields) == 0 {
		return true, nil
	}
	if err := json.Unmarshal(content, c); err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	return false, nil
}
