// A Call is one conversation by the Client-Server API's VoIP events (m.call.*), between this server and one user's client
// in a Matrix room.
// Package call owns these events as clients write them, and the state machine of both ends: who may say what when, and
// what is to be sent, until when. It never touches media, sends nothing itself, reads no clock, and believes no event
// from anybody but the one at the other end.
package call

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The types of events.
const (
	TypeInvite     = "m.call.invite"
	TypeCandidates = "m.call.candidates"
	TypeAnswer     = "m.call.answer"
	TypeSelect     = "m.call.select_answer"
	TypeReject     = "m.call.reject"
	TypeHangup     = "m.call.hangup"
	TypeNegotiate  = "m.call.negotiate"
	TypeStreams    = "m.call.sdp_stream_metadata_changed"
	TypeIdentity   = "m.call.asserted_identity"
	TypeReplaces   = "m.call.replaces"

	typeStreamsUnstable  = "org.matrix.call.sdp_stream_metadata_changed"
	typeIdentityUnstable = "org.matrix.call.asserted_identity"
)

// Types are all events that Parse reads.
var Types = []string{
	TypeInvite, TypeCandidates, TypeAnswer, TypeSelect, TypeReject, TypeHangup, TypeNegotiate,
	TypeStreams, typeStreamsUnstable, TypeIdentity, typeIdentityUnstable, TypeReplaces,
}

// Bounds of what clients may send.
const (
	maxID         = 255      // bytes, of call and party ids, as of all opaque ids
	maxSDP        = 48 << 10 // bytes; an event has at most 64 KiB
	maxCandidates = 100      // in one event
	maxCandidate  = 1 << 10  // bytes
	maxStreams    = 16
	maxLifetime   = 10 * time.Minute
)

var (
	// ErrForeign means that the event is none of a call, or of one between many (MSC3401).
	ErrForeign = errors.New("the event belongs to no call for two")
	// ErrMalformed means that something is missing, of a wrong type, or too large.
	ErrMalformed = errors.New("the event is malformed")
)

// A Version of the protocol: 0, the first, without parties, or 1 for everything since MSC2746.
type Version int

// MarshalJSON writes the number 0 and the string "1", as the specification wants them.
func (v Version) MarshalJSON() ([]byte, error) {
	if v == 0 {
		return []byte("0"), nil
	}
	return []byte(`"1"`), nil
}

// UnmarshalJSON takes whatever is not 0 for the latest that we know.
func (v *Version) UnmarshalJSON(raw []byte) error {
	*v = 1
	if s := string(raw); s == "0" || s == `"0"` {
		*v = 0
	}
	return nil
}

// An Event is what is needed of a Matrix event.
type Event struct {
	Type    string
	ID      string
	Sender  string
	Age     time.Duration // since it was sent
	Content json.RawMessage
}

// A Message is an event of a call, read.
type Message struct {
	Type   string // one of the Type constants, never an unstable name
	Event  string // id of the event
	Sender string
	Age    time.Duration

	Call     string
	Party    string // empty in version 0
	Version  Version
	Lifetime time.Duration // of an invitation or a negotiation
	Invitee  string        // whom the invitation is for; empty means everybody else in the room

	Description Description // of an invitation, an answer or a negotiation
	Candidates  []Candidate // without the one that says that there are no more
	Streams     Streams     // nil if nothing is said about them
	Selected    string      // party, of select_answer
	Reason      Reason      // of a hang-up
}

// A Description is half of a negotiation.
type Description struct {
	Type string `json:"type"` // offer or answer
	SDP  string `json:"sdp"`
}

// A Candidate is an ICE candidate of one side.
type Candidate struct {
	Candidate string  `json:"candidate"`
	MID       *string `json:"sdpMid,omitempty"`
	Line      *uint16 `json:"sdpMLineIndex,omitempty"`
}

// The purposes of streams (MSC3077).
const (
	UserMedia   = "m.usermedia"
	ScreenShare = "m.screenshare"
)

// A Stream is what one media stream carries, and whether its sender has muted it (MSC3077, MSC3291).
type Stream struct {
	Purpose    string `json:"purpose"`
	AudioMuted bool   `json:"audio_muted"`
	VideoMuted bool   `json:"video_muted"`
}

// Streams are one side's, by the stream ids of its description.
type Streams map[string]Stream

// A Reason for which a call ended.
type Reason string

// The reasons of the specification that are used here; whatever else comes is passed on.
const (
	UserHangup       Reason = "user_hangup"
	UserBusy         Reason = "user_busy"
	InviteTimeout    Reason = "invite_timeout"
	ICEFailed        Reason = "ice_failed"
	ICETimeout       Reason = "ice_timeout"
	UserMediaFailed  Reason = "user_media_failed"
	UnknownError     Reason = "unknown_error"
	Replaced         Reason = "replaced"
	SignallingFailed Reason = "signalling_timeout"

	// Never sent: what ended the call was no hang-up.
	Rejected          Reason = "rejected"
	AnsweredElsewhere Reason = "answered_elsewhere"
	RejectedElsewhere Reason = "rejected_elsewhere"
)

// An Identity is who is really at the other end of a call (MSC3086).
type Identity struct {
	ID          string `json:"id"`
	DisplayName string `json:"display_name,omitempty"`
	AvatarURL   string `json:"avatar_url,omitempty"`
}

// raw is the content of every event that there is.
type raw struct {
	Call     string          `json:"call_id"`
	Party    *string         `json:"party_id"`
	Version  Version         `json:"version"`
	Group    json.RawMessage `json:"conf_id"`
	Lifetime float64         `json:"lifetime"` // milliseconds
	Invitee  string          `json:"invitee"`

	Offer       *Description `json:"offer"`
	Answer      *Description `json:"answer"`
	Description *Description `json:"description"`

	Candidates      []Candidate       `json:"candidates"`
	Streams         map[string]Stream `json:"sdp_stream_metadata"`
	StreamsUnstable map[string]Stream `json:"org.matrix.msc3077.sdp_stream_metadata"`
	Selected        string            `json:"selected_party_id"`
	Reason          string            `json:"reason"`
}

// Parse reads an event. The error is or wraps ErrForeign or ErrMalformed.
func Parse(e Event) (Message, error) {
	m := Message{Type: e.Type, Event: e.ID, Sender: e.Sender, Age: max(0, e.Age)}
	switch e.Type {
	case typeStreamsUnstable:
		m.Type = TypeStreams
	case typeIdentityUnstable:
		m.Type = TypeIdentity
	case TypeInvite, TypeCandidates, TypeAnswer, TypeSelect, TypeReject, TypeHangup, TypeNegotiate, TypeStreams, TypeIdentity, TypeReplaces:
	default:
		return Message{}, fmt.Errorf("%w: its type is %.60q", ErrForeign, e.Type)
	}
	var c raw
	if err := json.Unmarshal(e.Content, &c); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if c.Group != nil && string(c.Group) != "null" {
		return Message{}, ErrForeign
	}
	if c.Party != nil {
		m.Party = *c.Party
	}
	m.Call, m.Version, m.Invitee = c.Call, c.Version, c.Invitee
	m.Selected, m.Reason = c.Selected, Reason(c.Reason)
	m.Lifetime = time.Duration(min(max(c.Lifetime, 0), float64(maxLifetime.Milliseconds()))) * time.Millisecond
	if m.Party == "" {
		m.Version = 0
	}
	switch {
	case m.Call == "" || len(m.Call) > maxID || len(m.Party) > maxID || len(m.Selected) > maxID || len(m.Reason) > maxID:
		return Message{}, fmt.Errorf("%w: an id is missing or too long", ErrMalformed)
	case e.Sender == "":
		return Message{}, fmt.Errorf("%w: it has no sender", ErrMalformed)
	}
	return m, m.fill(&c)
}

// fill takes over what a type of event must have.
func (m *Message) fill(c *raw) error {
	m.Streams = c.Streams
	if m.Streams == nil {
		m.Streams = c.StreamsUnstable
	}
	if len(m.Streams) > maxStreams {
		return fmt.Errorf("%w: %d streams", ErrMalformed, len(m.Streams))
	}
	switch m.Type {
	case TypeInvite:
		return m.describe(c.Offer, "offer")
	case TypeAnswer:
		return m.describe(c.Answer, "answer")
	case TypeNegotiate:
		if c.Description == nil || c.Description.Type != "answer" {
			return m.describe(c.Description, "offer")
		}
		return m.describe(c.Description, "answer")
	case TypeSelect:
		if m.Selected == "" {
			return fmt.Errorf("%w: no party is selected", ErrMalformed)
		}
	case TypeCandidates:
		return m.gather(c.Candidates)
	}
	return nil
}

func (m *Message) describe(d *Description, kind string) error {
	switch {
	case d == nil || d.SDP == "" || d.Type != "" && d.Type != kind:
		return fmt.Errorf("%w: it has no %s", ErrMalformed, kind)
	case len(d.SDP) > maxSDP:
		return fmt.Errorf("%w: its SDP has %d bytes", ErrMalformed, len(d.SDP))
	}
	m.Description = Description{Type: kind, SDP: d.SDP}
	return nil
}

// gather takes the candidates over. An empty one says that there are no more, which ICE needs not know.
func (m *Message) gather(all []Candidate) error {
	if len(all) > maxCandidates {
		return fmt.Errorf("%w: %d candidates", ErrMalformed, len(all))
	}
	for _, c := range all {
		if len(c.Candidate) > maxCandidate {
			return fmt.Errorf("%w: a candidate of %d bytes", ErrMalformed, len(c.Candidate))
		}
		if strings.TrimSpace(c.Candidate) != "" {
			m.Candidates = append(m.Candidates, c)
		}
	}
	return nil
}
