// A Courier carries the media keys of one device in one call: it sends ours to the devices that must have them, as often as
// it takes, and hands over those of others. Package courier owns the way between the rules of mediakeys and a device's mail.
// It never makes, chooses or keeps a key itself, and knows no media.
package courier

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/matrix/device"
	"callserver/signalling/matrix/mediakeys"
)

// sendTime bounds one attempt to send a key: keys of devices at homeservers that do not answer take longer than any other.
const sendTime = 20 * time.Second

// A Post is a device that can send messages: *device.Device, or in tests a fake.
type Post interface {
	User() id.UserID
	ID() id.DeviceID // empty while it cannot
	Send(ctx context.Context, kind string, to []device.Recipient, content json.RawMessage) (missed []device.Recipient, err error)
}

// Options of a Courier. Device, Room, Member, Own and Theirs are required.
type Options struct {
	Device Post
	Room   id.RoomID
	Member string // the id of our membership: user:DEVICE where it is a state event
	Crowd  int    // beyond so many members nobody's leaving makes a new key; 0 means always

	// Told by Run, in order; what they do must not take long.
	Own    func(mediakeys.Own)    // seal with it from then on
	Theirs func(mediakeys.Theirs) // open with it, too

	Now    func() time.Time // nil means time.Now
	Logger *slog.Logger     // nil means none
}

// A Courier is safe for concurrent use; made by [Office.Engage].
type Courier struct {
	options Options
	self    mediakeys.Peer
	wake    chan struct{} // capacity 1

	mu       sync.Mutex
	exchange *mediakeys.Exchange
}

// Members says who is in the call now: all whose memberships hold.
func (c *Courier) Members(all []mediakeys.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchange.Members(c.options.Now(), all)
	c.signal()
}

func (c *Courier) receive(l mediakeys.Letter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchange.Receive(c.options.Now(), l)
	c.signal()
}

func (c *Courier) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run carries keys until ctx ends, which is no error. The first of our own it hands over at once.
func (c *Courier) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-timer.C:
		}
		for c.round(ctx) {
		}
		if ctx.Err() != nil {
			return nil
		}
		c.mu.Lock()
		due, more := c.exchange.Due()
		c.mu.Unlock()
		if more {
			timer.Reset(due.Sub(c.options.Now()))
		}
	}
}

// round does what is due, and reports whether it sent something, after which more may be due.
func (c *Courier) round(ctx context.Context) bool {
	c.mu.Lock()
	effects := c.exchange.Take(c.options.Now())
	c.mu.Unlock()
	for _, k := range effects.Theirs {
		c.options.Theirs(k)
	}
	for _, k := range effects.Own {
		c.options.Own(k)
	}
	if effects.Parcel == nil {
		return false
	}
	missed := c.send(ctx, effects.Parcel)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchange.Sent(c.options.Now(), effects.Parcel, missed)
	return ctx.Err() == nil
}

// send returns who was not reached.
func (c *Courier) send(ctx context.Context, p *mediakeys.Parcel) []mediakeys.Peer {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	letter := mediakeys.Letter{Room: string(c.options.Room), From: c.self, Member: c.options.Member, Key: p.Key, Sent: c.options.Now()}
	to := make([]device.Recipient, len(p.To))
	for i, peer := range p.To {
		to[i] = device.Recipient{User: id.UserID(peer.User), Device: id.DeviceID(peer.Device)}
	}
	unreached, err := c.options.Device.Send(ctx, mediakeys.Type, to, letter.Content())
	if err != nil {
		c.options.Logger.Debug("a media key is not sent yet", "room", c.options.Room, "err", err)
		return p.To
	}
	return slices.DeleteFunc(slices.Clone(p.To), func(peer mediakeys.Peer) bool {
		return !slices.Contains(unreached, device.Recipient{User: id.UserID(peer.User), Device: id.DeviceID(peer.Device)})
	})
}
