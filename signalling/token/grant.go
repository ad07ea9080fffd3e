// A Grant is what a LiveKit access token says: who its bearer is and what it may do in which room.
// Package token owns the translation between grants and signed tokens: mint, verify, refresh.
// It never decides who deserves a grant, reads a clock, does I/O, or logs.
package token

import (
	"cmp"
	"encoding/json"
	"time"
)

// A Grant is the content of a verified token with every default resolved, so that no reader of it needs
// to know which claims were absent. A Grant is a value; its maps and slices are not shared with anything.
type Grant struct {
	Identity    string // claim sub; any non-empty string: spaces, '@', ':' and non-ASCII text included
	Name        string
	Metadata    string
	Kind        string // standard, ingress, egress, sip, agent, connector or bridge; "" means standard
	KindDetails []string
	Attributes  map[string]string

	Room            string // the only room that RoomJoin and RoomAdmin speak of
	DestinationRoom string
	RoomJoin        bool
	RoomAdmin       bool
	RoomCreate      bool
	RoomList        bool
	RoomRecord      bool
	IngressAdmin    bool

	// FullAccess marks a token of our own authoriser for a member who may bring its room into being again,
	// which clients need after a restart of the server. It is a claim of ours, so that roomCreate can stay
	// false as the clients of the authoriser expect.
	FullAccess bool
	Origin     Origin // zero unless our own authoriser issued the token

	RoomConfig json.RawMessage // claim roomConfig: a livekit.RoomConfiguration in protobuf's JSON; nil if absent
	SHA256     string          // claim sha256: digest of the body this token vouches for, as webhooks carry it

	Permission
	Validity
}

// An Origin says for whom and for which conversation our own authoriser issued a token, and since when that is known to
// be right. Refreshed tokens keep it, so that what is revoked stays so.
type Origin struct {
	User         string    // a Matrix user id
	For          string    // another one, in whose place User is there; empty if User is there for itself. No token has it
	Conversation string    // where the user is a member: a Matrix room id
	Device       string    // as the client claims; empty if it named none
	Member       string    // id of the membership, as the client chose it; empty if it named none
	Verified     time.Time // in milliseconds
	Assumed      bool      // nobody could verify it, and the operator lets such users in
}

// Person is who speaks.
func (o Origin) Person() string { return cmp.Or(o.For, o.User) }

// Permission is what the bearer may do once it is in the room. The zero value allows nothing.
type Permission struct {
	CanPublish            bool
	CanSubscribe          bool
	CanPublishData        bool
	CanUpdateOwnMetadata  bool
	CanSubscribeMetrics   bool
	CanManageAgentSession bool
	CanPublishSources     []string // camera, microphone, screen_share, screen_share_audio; empty means all
	Hidden                bool
	Recorder              bool
	Agent                 bool
}

// Validity says by which key and for which time a token was issued. Verify fills it in; Mint ignores it.
type Validity struct {
	Key       string    // id of the key that signed it
	IssuedAt  time.Time // claim iat, or else NotBefore
	NotBefore time.Time // zero if the token does not say
	Expires   time.Time // never zero
}

// Join returns the grant of an ordinary participant: it may join the room, publish, subscribe and send data.
func Join(room, identity string) Grant {
	return Grant{
		Identity: identity,
		Room:     room,
		RoomJoin: true,
		Permission: Permission{
			CanPublish:     true,
			CanSubscribe:   true,
			CanPublishData: true,
		},
	}
}

// CanCreateRoom reports whether joining may create the room although the server does not create rooms by itself.
func (g Grant) CanCreateRoom() bool { return g.RoomCreate || g.FullAccess }
