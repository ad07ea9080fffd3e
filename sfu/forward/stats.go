package forward

import "time"

// LayerStats are the counts of one incoming stream since it began.
type LayerStats struct {
	SSRC       uint32
	Packets    uint64 // without duplicates
	Bytes      uint64 // RTP payload
	Bitrate    int64  // bits/s of RTP payload over the last full second, 0 when it stopped
	Lost       int64  // packets, RFC 3550 §6.4.1: not reduced by retransmissions
	Recovered  uint64 // packets that a retransmission brought
	Duplicates uint64
	Jitter     time.Duration // RFC 3550 §A.8
	Nacks      uint64        // packets asked for again, repeats counted
	KeyFrames  uint64
	Requests   uint64 // key frame requests sent to the publisher
	Live       bool   // arriving at present
}

// SourceStats is a snapshot of a Source.
type SourceStats struct {
	Layers []LayerStats // by spatial index
	Sinks  int
	RTT    time.Duration // as set by SetRTT
}

// SinkStats is a snapshot of a Sink.
type SinkStats struct {
	Packets         uint64 // sent for the first time
	Bytes           uint64 // RTP payload sent for the first time
	Bitrate         int64  // bits/s of RTP payload over the last full second, 0 when it stopped
	Dropped         uint64 // packets of the current stream held back: temporal or spatial layers, padding
	Nacked          uint64 // packets the receiver asked for again
	Retransmitted   uint64 // sent again
	Repeated        uint64 // bytes of RTP payload sent again
	Unavailable     uint64 // asked for, no longer (or not yet) in the history
	KeyFrameWanted  uint64 // PLI and FIR from the receiver
	Switches        uint64 // changes of spatial layer
	WriteErrors     uint64
	FractionLost    float64 // 0 to 1, last report
	Lost            int64   // packets, last report
	Jitter          time.Duration
	RTT             time.Duration // 0 until a report answered one of ours
	Current, Target Layer
}
