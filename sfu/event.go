package sfu

import "callserver/sfu/codec"

// Event is something that a participant's client or peer must be told. The events are the structs of this file.
type Event interface{ event() }

// ParticipantsChanged holds the newest state of participants, the receiver included. State Disconnected means gone.
type ParticipantsChanged struct{ Participants []*ParticipantInfo }

// RoomChanged holds the newest state of the room.
type RoomChanged struct{ Room RoomInfo }

// DownlinkWanted asks for a section that carries the track to this participant; Bind when it is negotiated.
type DownlinkWanted struct {
	Track             TrackInfo
	Publisher         SID
	PublisherIdentity Identity
	StreamID          string // "PA_...|TR_..."
	Codec             codec.Codec
	CNAME             string // one for all tracks of a publisher, so that receivers may synchronise them
}

// DownlinkDropped says that the track is no longer to be sent to this participant.
type DownlinkDropped struct{ Track SID }

// SubscriptionFailed says that a track will not be sent, and why.
type SubscriptionFailed struct {
	Track SID
	Code  SubscriptionError
}

// SubscriptionError says why a subscription failed. Numbered as in the client protocol.
type SubscriptionError uint8

// The subscription errors.
const (
	SubscriptionUnknown SubscriptionError = iota
	SubscriptionCodecUnsupported
	SubscriptionTrackNotFound
)

// SubscriptionPermission says whether the publisher lets this participant have the track.
type SubscriptionPermission struct {
	Publisher, Track SID
	Allowed          bool
}

// StreamChanged says that a video is paused because there is not bandwidth enough to this participant, or goes on.
type StreamChanged struct {
	Publisher, Track SID
	Paused           bool
}

// FirstSubscriber tells the publisher, once, that somebody receives the track.
type FirstSubscriber struct{ Track SID }

// QualitiesWanted tells the publisher the highest quality that anybody receives.
type QualitiesWanted struct {
	Track  SID
	Codecs []CodecQuality
}

// CodecQuality is the highest quality wanted of one codec; Off for none.
type CodecQuality struct {
	Mime string
	Max  Quality
}

// MuteRequested tells the publisher that the server muted (or unmuted) its track.
type MuteRequested struct {
	Track SID
	Muted bool
}

// TrackPublished answers a Publish that returned ErrQueued.
type TrackPublished struct {
	CID   string
	Track TrackInfo
}

// TrackRemoved tells the publisher that the server ended its track.
type TrackRemoved struct{ Track SID }

// Speaker is how loud a participant is.
type Speaker struct {
	SID    SID
	Level  float32 // 0..1, in steps of 1/8
	Active bool
}

// Speakers holds the speakers that changed.
type Speakers struct{ Speakers []Speaker }

// ParticipantQuality is how well a participant is connected.
type ParticipantQuality struct {
	SID     SID
	Quality ConnectionQuality
	Score   float32 // mean opinion score, 1..4.5
}

// Qualities holds the connection qualities that changed.
type Qualities struct{ Qualities []ParticipantQuality }

// Closed is the last event: the participant is no longer in the room.
type Closed struct{ Reason Reason }

func (ParticipantsChanged) event()    {}
func (RoomChanged) event()            {}
func (DownlinkWanted) event()         {}
func (DownlinkDropped) event()        {}
func (SubscriptionFailed) event()     {}
func (SubscriptionPermission) event() {}
func (StreamChanged) event()          {}
func (FirstSubscriber) event()        {}
func (QualitiesWanted) event()        {}
func (MuteRequested) event()          {}
func (TrackPublished) event()         {}
func (TrackRemoved) event()           {}
func (Speakers) event()               {}
func (Qualities) event()              {}
func (Closed) event()                 {}
