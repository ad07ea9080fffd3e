package sfu

import (
	"sync"
	"time"
)

// RoomID is the name of a room, as the token says it.
type RoomID string

// Identity names a participant across sessions, as the token says it.
type Identity string

// SID is an id given by this server: RM_ for rooms, PA_ for participants, TR_ for tracks.
type SID string

// Kind is the kind of a track.
type Kind uint8

// The kinds of track.
const (
	Audio Kind = iota
	Video
	Data
)

// TrackSource says where a track comes from.
type TrackSource uint8

// The sources of a track, numbered as in the client protocol.
const (
	Unknown TrackSource = iota
	Camera
	Microphone
	ScreenShare
	ScreenShareAudio
)

// Quality is a video quality as clients name it, from lowest to highest; Off is none at all.
type Quality uint8

// The qualities, numbered as in the client protocol.
const (
	Low Quality = iota
	Medium
	High
	Off
)

// ParticipantState is how far a participant has come.
type ParticipantState uint8

// The states, numbered as in the client protocol:
//
//	Joining -> Joined -> Active -> Disconnected
//
// Every state may go to Disconnected directly, and none goes back.
const (
	Joining ParticipantState = iota
	Joined
	Active
	Disconnected
)

// ConnectionQuality is how well a participant is connected.
type ConnectionQuality uint8

// The connection qualities, numbered as in the client protocol.
const (
	Poor ConnectionQuality = iota
	Good
	Excellent
	Lost
)

// Reason says why a participant left.
type Reason uint8

// The reasons, named and numbered as DisconnectReason of the client protocol.
const (
	UnknownReason Reason = iota
	ClientInitiated
	DuplicateIdentity
	ServerShutdown
	ParticipantRemoved
	RoomDeleted
	StateMismatch
	JoinFailure
	Migration
	SignalClose
	RoomClosed
	UserUnavailable
	UserRejected
	SIPTrunkFailure
	ConnectionTimeout
	MediaFailure
)

// Participant kinds that the room treats specially; others pass through. Numbered as in the client protocol.
const (
	KindStandard int32 = 0
	KindEgress   int32 = 2
	KindAgent    int32 = 4
)

// Encryption of a track's frames by the clients. Numbered as in the client protocol; only None is readable here.
const (
	EncryptionNone int32 = 0
	EncryptionGCM  int32 = 1
)

// Permission is what a participant may do. The zero value may do nothing.
type Permission struct {
	CanSubscribe, CanPublish, CanPublishData, CanUpdateMetadata bool
	Hidden, Recorder, Agent                                     bool
	CanPublishSources                                           []TrackSource // empty = all
}

// Publishes reports whether a track from that source may be published.
func (p Permission) Publishes(s TrackSource) bool {
	if !p.CanPublish || p.Hidden {
		return false
	}
	if len(p.CanPublishSources) == 0 {
		return true
	}
	for _, allowed := range p.CanPublishSources {
		if allowed == s {
			return true
		}
	}
	return false
}

// fits reports whether a track of that kind may come from that source, where only some sources may be published: a
// picture is no microphone, whatever its client calls it.
func (p Permission) fits(k Kind, s TrackSource) bool {
	return len(p.CanPublishSources) == 0 || (k == Video) == (s == Camera || s == ScreenShare)
}

// ClientInfo is what the client says of itself.
type ClientInfo struct {
	SDK, Version, OS, Browser string
	Protocol, ClientProtocol  int32
	Capabilities              []int32
}

// Member is who joins: what the token and the client's parameters say. Its slices must not be written afterwards.
type Member struct {
	Identity       Identity
	Name, Metadata string
	Attributes     map[string]string
	Kind           int32
	Permission     Permission
	Client         ClientInfo
	AutoSubscribe  bool // subscribe to every track without being asked
	AdaptiveStream bool // video starts at the lowest layer; the client asks for more
	AllowPause     bool // videos may be paused if there is too little bandwidth even for their lowest layer
	CreateRoom     bool // the grant lets it create the room

	// Ready, of capacity 1, is signalled when there are events to read; nil: a channel of the participant's.
	Ready chan struct{}

	// Owner is who it is over several identities: devices of one user, or one device under two names. They count as one
	// person towards the limit of the room. Empty: the identity.
	Owner string
}

// person is who counts towards the limit of a room.
func (m *Member) person() string {
	if m.Owner != "" {
		return m.Owner
	}
	return string(m.Identity)
}

// standard reports whether the member keeps a room open and counts towards its limit: all but agents, egress and recorders.
func (m *Member) standard() bool {
	return m.Kind != KindAgent && m.Kind != KindEgress && !m.Permission.Recorder
}

// LayerInfo is one quality of a video track.
type LayerInfo struct {
	Quality                Quality
	Width, Height, Bitrate uint32 // pixels, pixels, bits/s
	SSRC                   uint32
	RID                    string
	Spatial                int8 // index in the negotiated order, lowest resolution first
}

// CodecInfo is one codec in which a track is, or may be, published.
type CodecInfo struct {
	Mime, CID, MID, SDPCID string
	Layers                 []LayerInfo
	LayerMode              int32
}

// TrackInfo describes a published track. Its slices are shared and must not be written.
type TrackInfo struct {
	SID                                              SID
	Kind                                             Kind
	Source                                           TrackSource
	Name, Mime, MID, Stream                          string
	Muted, Simulcast, DisableDTX, DisableRED, Stereo bool
	Width, Height                                    uint32
	Layers                                           []LayerInfo
	Codecs                                           []CodecInfo
	Encryption, BackupCodecPolicy                    int32
	AudioFeatures, PacketTrailer                     []int32
	Version                                          TrackVersion
}

// TrackVersion orders the states of a track.
type TrackVersion struct {
	UnixMicro int64
	Ticks     int32
}

// ParticipantInfo describes a participant. Version rises with each change within a session. Everybody in the room is told the same one:
// neither it nor its slices and map must be written.
type ParticipantInfo struct {
	SID            SID
	Identity       Identity
	Name, Metadata string
	Attributes     map[string]string
	Kind           int32
	State          ParticipantState
	JoinedAt       time.Time
	Version        uint32
	Permission     Permission
	Publisher      bool
	Tracks         []TrackInfo
	Reason         Reason // once Disconnected
	Client         ClientInfo

	encoding *encoding // nil: not kept
}

// encoding is an info as the client protocol has it, once somebody was told.
type encoding struct {
	once  sync.Once
	bytes []byte
}

// Encoded returns what encode makes of the info in the client protocol, which must not be written. It is made once and kept: in a crowd hundreds are told
// the same. Safe for concurrent use.
func (p *ParticipantInfo) Encoded(encode func(*ParticipantInfo) []byte) []byte {
	if p.encoding == nil {
		return encode(p)
	}
	p.encoding.once.Do(func() { p.encoding.bytes = encode(p) })
	return p.encoding.bytes
}

// RoomInfo describes a room.
type RoomInfo struct {
	SID                            SID
	Name                           RoomID
	Metadata                       string
	CreatedAt                      time.Time
	EmptyTimeout, DepartureTimeout time.Duration
	MaxParticipants                int // 0 = no limit
	Participants, Publishers       int // without hidden ones
	Locked                         bool
}
