package rtc

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"callserver/sfu/rtc/description"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"
)

// Labels of the protocol's data channels, and the ids of those that are negotiated beforehand.
const (
	labelReliable = "_reliable"
	labelLossy    = "_lossy"
	labelTracks   = "_data_track"

	negotiatedProtocol = 18 // clients from here on open channels 100 to 102 without asking
	negotiatedID       = 100
)

// Bounds on what waits to be sent to a client.
const (
	maxLossyWaiting    = 64 << 10 // bytes; more is dropped
	maxReliableWaiting = 4 << 20  // bytes; a client further behind than this is cut off
)

// smallestRead is the room that a data channel's reader begins with, in bytes. Most channels carry little or nothing, and everybody has three or
// six of them.
const smallestRead = 1 << 10

// channels are a peer's data channels. Safe for concurrent use.
type channels struct {
	mu              sync.Mutex
	reliable, lossy *webrtc.DataChannel // towards the client, nil until open
	announced       bool                // DataOpen was sent
}

// createChannels opens our channels: the trio of the subscriber connection, or the ones negotiated beforehand.
func (p *Peer) createChannels() error {
	c, negotiated := p.server, false
	if p.options.Single {
		if p.options.Protocol < negotiatedProtocol {
			return nil // the client opens them
		}
		c, negotiated = p.client, true
	}
	if c == nil {
		return nil
	}
	for i, label := range []string{labelReliable, labelLossy, labelTracks} {
		ordered, none, id := i == 0, uint16(0), uint16(negotiatedID+i)
		init := &webrtc.DataChannelInit{Ordered: &ordered}
		if !ordered {
			init.MaxRetransmits = &none
		}
		if negotiated {
			init.Negotiated, init.ID = &negotiated, &id
		}
		channel, err := c.pc.CreateDataChannel(label, init)
		if err != nil {
			return fmt.Errorf("open data channel %s: %w", label, err)
		}
		p.opened(c, channel)
	}
	return nil
}

// opened watches a channel of ours or of the client's. Unknown labels are accepted and ignored.
func (p *Peer) opened(c *connection, channel *webrtc.DataChannel) {
	label := channel.Label()
	outbound := c == p.sender()
	channel.OnOpen(func() {
		in, err := channel.Detach()
		if err != nil {
			p.log.Debug("read data channel", "label", label, "error", err)
			return
		}
		if !p.start(func() { p.readLoop(label, in) }) {
			return
		}
		if outbound {
			p.data.opened(p, label, channel)
		}
	})
}

// readLoop takes what the client sends on a channel until that is closed. Pion would read into as much as a message may have, for every channel.
func (p *Peer) readLoop(label string, in datachannel.Reader) {
	b := make([]byte, smallestRead)
	for {
		n, _, err := in.ReadDataChannel(b)
		switch {
		case err == nil:
			p.emit(DataReceived{Reliable: label == labelReliable, Label: label, Payload: slices.Clone(b[:n])})
		case errors.Is(err, io.ErrShortBuffer) && len(b) < description.MaxMessageSize:
			b = make([]byte, min(4*len(b), description.MaxMessageSize)) // the message is still there; nobody tells how long it is
		default:
			return
		}
	}
}

func (d *channels) opened(p *Peer, label string, channel *webrtc.DataChannel) {
	leave, ok := p.enter()
	if !ok {
		return
	}
	defer leave()
	d.mu.Lock()
	switch label {
	case labelReliable:
		d.reliable = channel
	case labelLossy:
		d.lossy = channel
	}
	announce := d.reliable != nil && d.lossy != nil && !d.announced
	d.announced = d.announced || announce
	d.mu.Unlock()
	if announce {
		p.emit(DataOpen{})
	}
}

// WriteData sends a message on the data channel towards the client. It never blocks: lossy messages are dropped when the
// client reads too slowly, and a reliable channel that falls too far behind fails the peer.
func (p *Peer) WriteData(reliable bool, b []byte) error {
	p.data.mu.Lock()
	channel, limit := p.data.lossy, uint64(maxLossyWaiting)
	if reliable {
		channel, limit = p.data.reliable, maxReliableWaiting
	}
	p.data.mu.Unlock()
	if channel == nil {
		return ErrNotOpen
	}
	if channel.BufferedAmount()+uint64(len(b)) > limit {
		if reliable {
			p.fail(fmt.Errorf("reliable data: %d bytes wait to be read by the client", channel.BufferedAmount()))
		}
		return ErrDropped
	}
	return channel.Send(b)
}
