package rtc

import (
	"fmt"
	"sync"

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
		if outbound {
			p.data.opened(p, label, channel)
		}
	})
	channel.OnMessage(func(m webrtc.DataChannelMessage) {
		leave, ok := p.enter()
		if !ok {
			return
		}
		defer leave()
		p.emit(DataReceived{Reliable: label == labelReliable, Label: label, Payload: m.Data})
	})
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
