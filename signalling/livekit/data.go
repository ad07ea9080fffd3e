package livekit

import (
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"callserver/sfu"
	"callserver/signalling"
)

// The data channels whose messages are DataPackets; others are not for us to understand.
const (
	reliableLabel = "_reliable"
	lossyLabel    = "_lossy"
)

// data routes a message of the client to the others. Who sent it and by which channel is what we know, never what the
// message says; everything else in it goes on as it came, fields of later protocol versions included.
func (c *client) data(e signalling.Data) {
	defer c.recovered()
	if e.Label != reliableLabel && e.Label != lossyLabel {
		return
	}
	self := c.sess.Info()
	if !self.Permission.CanPublishData {
		return
	}
	var packet livekit.DataPacket
	if err := proto.Unmarshal(e.Payload, &packet); err != nil {
		c.log.Debug("data not understood", "bytes", len(e.Payload), "err", err)
		return
	}
	if e.Reliable && !c.inSequence(packet.Sequence) || !mayPass(&packet, self) {
		return
	}
	if user := packet.GetUser(); user != nil && c.nonces.seen(user.GetNonce()) {
		return
	}
	stamp(&packet, self, e.Reliable)
	to, all := c.recipients(&packet)
	if !all && len(to) == 0 {
		return
	}
	out, err := proto.Marshal(&packet)
	if err == nil {
		err = c.sess.SendData(out, e.Reliable, to)
	}
	if err != nil {
		c.log.Debug("data not forwarded", "err", err)
	}
}

// inSequence reports whether a reliable message is new: after a resume clients repeat what may have been lost.
func (c *client) inSequence(sequence uint32) bool {
	if sequence == 0 { // an older client, which does not count
		return true
	}
	if sequence <= c.sequence {
		return false
	}
	c.sequence = sequence
	return true
}

// mayPass keeps back what only the server or an agent may say.
func mayPass(p *livekit.DataPacket, self sfu.ParticipantInfo) bool {
	switch p.Value.(type) {
	case *livekit.DataPacket_Speaker, *livekit.DataPacket_Metrics:
		return false
	case *livekit.DataPacket_Transcription:
		return self.Permission.Agent || self.Kind == sfu.KindAgent
	}
	return true
}

// stamp overwrites who sent the packet, at the present and at the former place of each field.
func stamp(p *livekit.DataPacket, self sfu.ParticipantInfo, reliable bool) {
	identity := string(self.Identity)
	if self.Permission.Hidden {
		identity = ""
	}
	p.Kind = livekit.DataPacket_LOSSY
	if reliable {
		p.Kind = livekit.DataPacket_RELIABLE
	}
	p.ParticipantSid = string(self.SID)
	// Agents may send text for the person whose speech it is.
	if !speaksForOthers(p, self) {
		p.ParticipantIdentity = identity
	}
	user := p.GetUser()
	if user == nil {
		return
	}
	user.ParticipantSid, user.ParticipantIdentity = string(self.SID), identity
	if len(p.DestinationIdentities) == 0 {
		p.DestinationIdentities = user.DestinationIdentities
	}
	user.DestinationIdentities = p.DestinationIdentities
}

func speaksForOthers(p *livekit.DataPacket, self sfu.ParticipantInfo) bool {
	if p.ParticipantIdentity == "" || !self.Permission.Agent && self.Kind != sfu.KindAgent {
		return false
	}
	switch p.Value.(type) {
	case *livekit.DataPacket_ChatMessage, *livekit.DataPacket_StreamHeader, *livekit.DataPacket_StreamChunk, *livekit.DataPacket_StreamTrailer:
		return true
	}
	return false
}

// recipients is who gets the packet; all means everybody but the sender.
func (c *client) recipients(p *livekit.DataPacket) (to []sfu.Identity, all bool) {
	bySID := p.GetUser().GetDestinationSids()
	if len(p.DestinationIdentities) == 0 && len(bySID) == 0 {
		return nil, true
	}
	for _, identity := range p.DestinationIdentities {
		to = append(to, sfu.Identity(identity))
	}
	if len(bySID) == 0 {
		return to, false
	}
	known := map[sfu.SID]sfu.Identity{}
	for _, other := range c.sess.Others() {
		known[other.SID] = other.Identity
	}
	for _, sid := range bySID {
		if identity, ok := known[sfu.SID(sid)]; ok {
			to = append(to, identity)
		}
	}
	return to, false
}

const (
	nonceSize    = 16
	nonceHistory = 256
)

// nonces remember the marks by which a message that was sent twice is told from two messages. The zero value is
// ready; it forgets the oldest.
type nonces struct {
	known map[[nonceSize]byte]struct{}
	order [nonceHistory][nonceSize]byte
	next  int
}

// seen reports whether the nonce came before, and remembers it. Messages without one are always new.
func (n *nonces) seen(nonce []byte) bool {
	if len(nonce) != nonceSize {
		return false
	}
	key := [nonceSize]byte(nonce)
	if _, ok := n.known[key]; ok {
		return true
	}
	if n.known == nil {
		n.known = map[[nonceSize]byte]struct{}{}
	}
	if len(n.known) == nonceHistory {
		delete(n.known, n.order[n.next])
	}
	n.known[key] = struct{}{}
	n.order[n.next] = key
	n.next = (n.next + 1) % nonceHistory
	return false
}
