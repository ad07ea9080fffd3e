package forward

import (
	"time"

	"callserver/sfu/packet"

	"github.com/pion/rtcp"
)

// A Sink is one receiver of a Source. Safe for concurrent use.
type Sink struct {
	source *Source
	writer Writer
}

func (k *Sink) forward(p *packet.Packet) {
	_ = k.writer.WriteRTP(&Outgoing{
		SequenceNumber: p.SequenceNumber, Timestamp: p.Timestamp, Marker: p.Marker, Payload: p.Payload,
		AbsCaptureTime: p.AbsCaptureTime, AudioLevel: p.AudioLevel, Voice: p.Voice, HasAudioLevel: p.HasAudioLevel,
	})
}

// SetTarget says which layer to forward at best; NoLayer pauses. For audio any other layer means "play".
func (k *Sink) SetTarget(Layer) {}

// Nack takes the receiver's request for packets to be sent again (RFC 4585 §6.2.1), by the sequence numbers it was sent.
func (k *Sink) Nack(seqs []uint16, now time.Time) {}

// RequestKeyFrame takes the receiver's PLI or FIR.
func (k *Sink) RequestKeyFrame(now time.Time) {}

// ReceptionReport takes the receiver's report block.
func (k *Sink) ReceptionReport(r rtcp.ReceptionReport, now time.Time) {}

// SenderReport returns the report to send to the receiver now (the writer fills in the SSRC), false while there is nothing to say:
// nothing sent yet, or no report from the publisher.
func (k *Sink) SenderReport(now time.Time) (sr rtcp.SenderReport, ok bool) {
	return rtcp.SenderReport{}, false
}

// Stats returns a snapshot of the counts.
func (k *Sink) Stats() SinkStats { return SinkStats{} }

// Current returns the layer being forwarded, NoLayer while there is none.
func (k *Sink) Current() Layer { return NoLayer }

// Detach takes the receiver off the Source. Detaching twice is fine.
func (k *Sink) Detach() {}
