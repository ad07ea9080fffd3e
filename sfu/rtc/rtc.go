// Package rtc is a peer: the WebRTC end of one client, with its connection or connections.
//
// It owns SDP, ICE, DTLS, the read loops of what a client sends (uplinks), the writers of what it receives
// (downlinks), RTCP in both directions and data channels. It never knows rooms, participants or permissions: it is told
// which forward.Source a media section feeds and which forward.Sink a downlink serves.
//
// We are always the DTLS server and always answer with the client's own payload types and header extension ids. Pion
// runs without interceptors: loss recovery, reports and bandwidth feedback are this package's and sfu/forward's.
package rtc

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"callserver/sfu/rtc/description"

	"github.com/pion/transport/v5"
)

// Defaults of Options.
const (
	DefaultICEKeepalive    = 2 * time.Second
	DefaultICEDisconnected = 8 * time.Second
	DefaultICEFailed       = 7 * time.Second // on top of ICEDisconnected
)

// Errors that callers branch on.
var (
	// ErrClosed is returned by every call on a closed Peer or Engine.
	ErrClosed = errors.New("peer is closed")
	// ErrBadDescription wraps every refusal of a client's SDP; its text says what is wrong with it.
	ErrBadDescription = description.ErrBad
	// ErrUnknownSection means that no media section has the mid, or that it carries nothing from the client.
	ErrUnknownSection = errors.New("no such media section")
	// ErrStale means that an answer belongs to an offer that is no longer outstanding.
	ErrStale = errors.New("answer to an offer that is not outstanding")
	// ErrDropped means that a message was not sent because the client reads too slowly.
	ErrDropped = errors.New("message dropped: receiver too slow")
	// ErrNotOpen means that the data channel is not open yet.
	ErrNotOpen = errors.New("data channel not open")
)

// Options configure an Engine. The zero value listens on a free port of every address but loopback, without ICE-TCP
// turned off.
type Options struct {
	UDPPort int // media port; 0 = any free one, -1 = no UDP
	TCPPort int // ICE-TCP port; 0 = any free one, -1 = no TCP

	Listen     []netip.Addr           // local addresses to use; empty = all
	Advertise  []Advertised           // addresses told to clients; empty = those listened on
	STUN       []string               // host:port of servers that are asked for our public addresses, which clients are told too
	Loopback   bool                   // offer loopback addresses too
	Interfaces func(name string) bool // network interfaces to use; nil = all

	Lite bool // ICE-lite (RFC 8445 §2.5): clients do the checks, and we answer

	Net    transport.Net // the network; nil = the system's. With a Net of its own ICE-TCP is off
	Logger *slog.Logger  // nil = discard

	ICEDisconnected time.Duration // silence until a peer counts as disconnected; 0 = 8 s
	ICEFailed       time.Duration // further silence until it counts as failed; 0 = 7 s
	ICEKeepalive    time.Duration // interval of connectivity checks on the chosen pair; 0 = 2 s

	// RED lets publishers send audio/red. Off by default: a subscriber that cannot receive it would hear nothing.
	RED bool

	// VideoBitrate is what clients are asked to send at most in one video section, in bits/s; 0 = no limit.
	VideoBitrate int64
}

// Target says which of a dual-mode client's connections is meant. A single-mode client has only Publisher.
type Target uint8

// The values of Target are those of the client protocol.
const (
	Publisher Target = iota
	Subscriber
)

// PeerOptions describe the client of a new Peer.
type PeerOptions struct {
	Single     bool   // one connection, offered by the client (protocol v1); false = two (v0)
	Protocol   int32  // the client's protocol version
	Firefox    bool   // the client is a Firefox
	Subscribes bool   // the client may receive; a v0 client that may not gets no subscriber connection
	AvoidUDP   bool   // see Peer.AvoidUDP
	Label      string // for log lines: who this is

	Ready chan struct{} // of capacity 1, signalled when there are events; nil = one that Peer.Ready returns

	// Plain is a peer without the client protocol: one connection that either side offers, whose sections carry media both ways, and
	// whose descriptions are complete with candidates. Single and Protocol do not matter then.
	Plain bool
}

// Want is what the client asked for in add_track; Offer orders codecs by it.
type Want = description.Want

// Section is a media section on which the client sends, or sent.
type Section struct {
	MID      string
	CID      string // msid track id
	StreamID string // msid stream id
	Video    bool
	Mime     string   // chosen codec, e.g. "video/VP8"
	RIDs     []string // simulcast streams, lowest resolution first; empty = one stream
	SSRCs    []uint32 // declared primary SSRCs, if any
	Active   bool     // false: the client stopped sending and freed the section
}

// Answer is our answer to a client's offer.
type Answer struct {
	ID       uint32 // echoes the offer's
	SDP      string
	Tracks   map[string]string // mid -> track id of every section we send on
	Sections []Section         // every section the client sends on, or no longer does
}

// DownlinkOptions describe one track to send to the client.
type DownlinkOptions struct {
	TrackID  string // TR_...: names the downlink in every later call
	StreamID string // msid stream id, PA_...|TR_...
	CNAME    string // RFC 3550 §6.5.1; the same for all tracks of a publisher enables lip sync
	Mime     string // codec of the track
	Stereo   bool
	Own      bool // a plain peer only: it gets a section that we offer for it, and none of the client's
}
