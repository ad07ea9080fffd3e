package member

import "time"

// A Declaration is a membership by a state event, to be sent by the user whose it is.
type Declaration struct {
	User, Device string
	Room         string // Matrix room id
	Service      string // livekit_service_url of the authoriser
	Intent       string // audio, video or empty
}

// Declare returns the state key and the content of a membership in a room's ordinary call, as Element Call writes them.
func Declare(d Declaration) (key string, content any) {
	type transport struct {
		Type    string `json:"type"`
		Service string `json:"livekit_service_url"`
		Alias   string `json:"livekit_alias"`
	}
	type active struct {
		Type      string `json:"type"`
		Selection string `json:"focus_selection"`
	}
	return StateKeys(d.User, d.Device, SlotRoom)[0], struct {
		Application string      `json:"application"`
		Call        string      `json:"call_id"`
		Scope       string      `json:"scope"`
		Device      string      `json:"device_id"`
		ID          string      `json:"membershipID"`
		Expires     int64       `json:"expires"`
		Intent      string      `json:"m.call.intent,omitempty"`
		Active      active      `json:"focus_active"`
		Preferred   []transport `json:"foci_preferred"`
	}{
		Application: "m.call", Scope: "m.room", Device: d.Device, ID: DeviceIdentity(d.User, d.Device),
		Expires: defaultLife.Milliseconds(), Intent: d.Intent,
		Active:    active{"livekit", "multi_sfu"},
		Preferred: []transport{{"livekit", d.Service, d.Room}},
	}
}

// A Ring is the content of the event at which clients ring (MSC4075).
type Ring struct {
	Mentions Mentions  `json:"m.mentions"`
	Kind     string    `json:"notification_type"`
	Relates  Reference `json:"m.relates_to"`
	Sent     int64     `json:"sender_ts"` // Unix time, milliseconds
	Lifetime int64     `json:"lifetime"`  // milliseconds
	Intent   string    `json:"m.call.intent,omitempty"`
}

// Mentions are whom an event is for.
type Mentions struct {
	Users []string `json:"user_ids"`
}

// A Reference names the event that another is about.
type Reference struct {
	Type  string `json:"rel_type"`
	Event string `json:"event_id"`
}

// NewRing makes the content of a ring for one user, by the membership event of whoever calls.
func NewRing(user, membership, intent string, now time.Time, life time.Duration) Ring {
	return Ring{
		Mentions: Mentions{[]string{user}}, Kind: "ring", Relates: Reference{"m.reference", membership},
		Sent: now.UnixMilli(), Lifetime: min(life, maxRing).Milliseconds(), Intent: intent,
	}
}

// A Refusal is the content of the event by which a user declines a ring (MSC4310).
type Refusal struct {
	Relates Reference `json:"m.relates_to"`
}

// NewRefusal declines a ring.
func NewRefusal(ring string) Refusal { return Refusal{Reference{"m.reference", ring}} }
