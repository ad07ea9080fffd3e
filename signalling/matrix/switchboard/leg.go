package switchboard

import (
	"context"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/token"
)

// A Leg is the media of a call: what signalling.Server.JoinLeg makes, and what tests have in its place.
type Leg interface {
	Ready() <-chan struct{}
	Events() []signalling.Event
	Others() []sfu.ParticipantInfo
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
