package switchboard

import (
	"context"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/matrix/call"
	"callserver/signalling/token"
)

// A Leg is the media of a call: what signalling.Server.JoinLeg makes, and what tests have in its place.
type Leg interface {
	Ready() <-chan struct{}
	Events() []signalling.Event
	Others() []*sfu.ParticipantInfo
	Answer(ctx context.Context, offer string) (signalling.LegDescription, error)
	Offer(ctx context.Context) (signalling.LegDescription, error)
	Accept(answer string) error
	Candidate(init string)
	Streams(remote map[string]signalling.LegStream)
	SetKey(identity sfu.Identity, index uint8, key []byte) error
	SetOwnKey(index uint8, key []byte) error
	Leave(sfu.Reason)
}

// Media makes legs, and knows who is in the calls of a Matrix room.
type Media interface {
	JoinLeg(context.Context, token.Grant, signalling.LegOptions) (Leg, error)
	Attendance(room string) []signalling.Attendee
}

// streams are the state machine's, for the leg.
func streams(of call.Streams) map[string]signalling.LegStream {
	all := make(map[string]signalling.LegStream, len(of))
	for id, s := range of {
		all[id] = signalling.LegStream{Screen: s.Purpose == call.ScreenShare, AudioMuted: s.AudioMuted, VideoMuted: s.VideoMuted}
	}
	return all
}

// metadata are the leg's, for the other end.
func metadata(of map[string]signalling.LegStream) call.Streams {
	all := make(call.Streams, len(of))
	for id, s := range of {
		stream := call.Stream{Purpose: call.UserMedia, AudioMuted: s.AudioMuted, VideoMuted: s.VideoMuted}
		if s.Screen {
			stream.Purpose = call.ScreenShare
		}
		all[id] = stream
	}
	return all
}
