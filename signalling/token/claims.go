package token

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// claims is the wire form of a Grant. What LiveKit's tokens may leave out is a pointer here.
type claims struct {
	jwt.RegisteredClaims

	Identity    string            `json:"identity,omitempty"` // older issuers; sub wins
	Name        string            `json:"name,omitempty"`
	Kind        string            `json:"kind,omitempty"`
	KindDetails []string          `json:"kindDetails,omitempty"`
	Metadata    string            `json:"metadata,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	SHA256      string            `json:"sha256,omitempty"`
	RoomConfig  json.RawMessage   `json:"roomConfig,omitempty"`
	Video       *video            `json:"video,omitempty"`
	Own         *own              `json:"callserver,omitempty"`
}

// own holds what only this server's authoriser writes. It counts because only a holder of the secret can sign it.
type own struct {
	Room         bool   `json:"room,omitempty"` // Grant.FullAccess
	User         string `json:"user,omitempty"` // Grant.Origin
	Conversation string `json:"conversation,omitempty"`
	Device       string `json:"device,omitempty"`
	Member       string `json:"member,omitempty"`
	Verified     int64  `json:"verified,omitempty"` // ms since 1970
	Assumed      bool   `json:"assumed,omitempty"`
}

func (o *own) origin() Origin {
	if o == nil || o.User == "" {
		return Origin{}
	}
	return Origin{
		User: o.User, Conversation: o.Conversation, Device: o.Device, Member: o.Member, Verified: time.UnixMilli(o.Verified),
		Assumed: o.Assumed,
	}
}

// video is LiveKit's room grant. Clients of the authoriser expect roomCreate and hidden to be spelled out.
type video struct {
	Room            string `json:"room,omitempty"`
	DestinationRoom string `json:"destinationRoom,omitempty"`
	RoomJoin        bool   `json:"roomJoin,omitempty"`
	RoomAdmin       bool   `json:"roomAdmin,omitempty"`
	RoomCreate      bool   `json:"roomCreate"`
	RoomList        bool   `json:"roomList,omitempty"`
	RoomRecord      bool   `json:"roomRecord,omitempty"`
	IngressAdmin    bool   `json:"ingressAdmin,omitempty"`

	CanPublish            *bool    `json:"canPublish,omitempty"`
	CanSubscribe          *bool    `json:"canSubscribe,omitempty"`
	CanPublishData        *bool    `json:"canPublishData,omitempty"`
	CanUpdateOwnMetadata  *bool    `json:"canUpdateOwnMetadata,omitempty"`
	CanSubscribeMetrics   *bool    `json:"canSubscribeMetrics,omitempty"`
	CanManageAgentSession *bool    `json:"canManageAgentSession,omitempty"`
	CanPublishSources     []string `json:"canPublishSources,omitempty"`
	Hidden                bool     `json:"hidden"`
	Recorder              bool     `json:"recorder,omitempty"`
	Agent                 bool     `json:"agent,omitempty"`
}

// grant resolves every absent claim to its default.
func (c *claims) grant() Grant {
	v := c.Video
	if v == nil {
		v = &video{}
	}
	g := Grant{
		Identity: c.Subject, Name: c.Name, Metadata: c.Metadata,
		Kind: c.Kind, KindDetails: c.KindDetails, Attributes: c.Attributes,
		Room: v.Room, DestinationRoom: v.DestinationRoom,
		RoomJoin: v.RoomJoin, RoomAdmin: v.RoomAdmin, RoomCreate: v.RoomCreate,
		RoomList: v.RoomList, RoomRecord: v.RoomRecord, IngressAdmin: v.IngressAdmin,
		FullAccess: c.Own != nil && c.Own.Room, Origin: c.Own.origin(),
		RoomConfig: c.RoomConfig, SHA256: c.SHA256,
		Permission: v.permission(),
	}
	if g.Identity == "" {
		g.Identity = c.Identity
	}
	if string(g.RoomConfig) == "null" {
		g.RoomConfig = nil
	}
	if c.NotBefore != nil {
		g.NotBefore = c.NotBefore.Time
	}
	g.IssuedAt = g.NotBefore
	if c.IssuedAt != nil {
		g.IssuedAt = c.IssuedAt.Time
	}
	g.Key, g.Expires = c.Issuer, c.ExpiresAt.Time
	return g
}

func (v *video) permission() Permission {
	publish := or(v.CanPublish, true)
	return Permission{
		CanPublish:            publish,
		CanSubscribe:          or(v.CanSubscribe, true),
		CanPublishData:        or(v.CanPublishData, publish),
		CanUpdateOwnMetadata:  or(v.CanUpdateOwnMetadata, false),
		CanSubscribeMetrics:   or(v.CanSubscribeMetrics, false),
		CanManageAgentSession: or(v.CanManageAgentSession, false),
		CanPublishSources:     v.CanPublishSources,
		Hidden:                v.Hidden,
		Recorder:              v.Recorder,
		Agent:                 v.Agent,
	}
}

func or(b *bool, absent bool) bool {
	if b == nil {
		return absent
	}
	return *b
}

// claimsOf writes every tri-state out, so that a reader with other defaults understands the same.
func claimsOf(g Grant) *claims {
	c := &claims{
		Name: g.Name, Metadata: g.Metadata, Kind: g.Kind,
		KindDetails: slices.Clone(g.KindDetails), Attributes: maps.Clone(g.Attributes),
		RoomConfig: g.RoomConfig, SHA256: g.SHA256,
		Video: &video{
			Room: g.Room, DestinationRoom: g.DestinationRoom,
			RoomJoin: g.RoomJoin, RoomAdmin: g.RoomAdmin, RoomCreate: g.RoomCreate,
			RoomList: g.RoomList, RoomRecord: g.RoomRecord, IngressAdmin: g.IngressAdmin,
			CanPublish: &g.CanPublish, CanSubscribe: &g.CanSubscribe, CanPublishData: &g.CanPublishData,
			CanUpdateOwnMetadata: &g.CanUpdateOwnMetadata,
			CanPublishSources:    g.CanPublishSources,
			Hidden:               g.Hidden, Recorder: g.Recorder, Agent: g.Agent,
		},
	}
	if g.CanSubscribeMetrics {
		c.Video.CanSubscribeMetrics = &g.CanSubscribeMetrics
	}
	if g.CanManageAgentSession {
		c.Video.CanManageAgentSession = &g.CanManageAgentSession
	}
	if g.FullAccess || g.Origin.User != "" {
		c.Own = &own{Room: g.FullAccess}
	}
	if g.Origin.User != "" {
		o := g.Origin
		c.Own.User, c.Own.Conversation, c.Own.Device, c.Own.Member = o.User, o.Conversation, o.Device, o.Member
		c.Own.Verified, c.Own.Assumed = o.Verified.UnixMilli(), o.Assumed
	}
	return c
}
