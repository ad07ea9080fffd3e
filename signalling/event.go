package signalling

import "callserver/sfu"

// An Event is something that an edge may have to tell its client: an event of sfu.Participant other than those that
// the session deals with itself (DownlinkWanted, DownlinkDropped), or one of the types below. In the queue, what a
// client must know of a participant comes before anything that mentions the participant's tracks.
type Event any

// A Target is the connection that a description or candidate is about. With one connection it is always Publisher.
type Target uint8

// The connections of a client.
const (
	Publisher  Target = iota // what the client offers
	Subscriber               // what we offer, to clients with two connections
)

// A Description is an SDP of ours.
type Description struct {
	ID     uint32             // echoes the offer's in an answer
	SDP    string             //
	Tracks map[string]sfu.SID // media section id -> track that we send there
}

// Offer is our offer to a client with two connections, for its subscriber side.
type Offer struct{ Description }

// Candidate is one of our ICE candidates. It follows the description that it belongs to.
type Candidate struct {
	Target Target
	Init   string // JSON of RTCIceCandidateInit
	Final  bool   // no more of this gathering
}

// SectionsNeeded asks a client with one connection to offer again, with that many receiving sections more.
type SectionsNeeded struct{ Audio, Video int }

// Connected says that the client's media connection is up, for the first time or again.
type Connected struct{}

// TransportSilent says that nothing has come over the media connection for a while. It may recover by itself.
type TransportSilent struct{}

// TransportFailed says that the media connection is dead; the client has to resume or is gone.
type TransportFailed struct{}

// Broken says that the session is beyond repair; the client has to join anew.
type Broken struct{ Err error }

// Data is a message from the client. Payload belongs to the receiver of the event.
type Data struct {
	Reliable bool
	Label    string // of the channel it came on
	Payload  []byte
}
