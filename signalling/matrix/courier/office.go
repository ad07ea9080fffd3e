package courier

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/matrix/device"
	"callserver/signalling/matrix/mediakeys"
)

// ErrNoDevice means that the device has no place at its homeserver now, so that nobody can send it keys.
var ErrNoDevice = errors.New("there is no device to which others could send their keys")

// An Office has the letters that arrive for one device, and hands each to the courier of its call. Letters of calls for
// which there is none are dropped. Safe for concurrent use; the zero value is open.
type Office struct {
	dropped atomic.Uint64

	mu       sync.Mutex
	couriers map[id.RoomID]*Courier
}

// Engage makes the courier of a device's call, before others can see its membership: keys that come earlier are lost. The
// one that it had in that room is replaced. The caller calls Run, and Dismiss when the device leaves.
func (o *Office) Engage(options Options) (*Courier, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	self := mediakeys.Peer{User: string(options.Device.User()), Device: string(options.Device.ID())}
	if self.Device == "" {
		return nil, ErrNoDevice
	}
	c := &Courier{
		options: options, self: self, wake: make(chan struct{}, 1),
		exchange: mediakeys.New(mediakeys.Options{Self: self, Crowd: options.Crowd}, options.Now()),
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.couriers == nil {
		o.couriers = make(map[id.RoomID]*Courier)
	}
	o.couriers[options.Room] = c
	return c, nil
}

// Dismiss ends the deliveries to a courier. Dismissing twice is fine.
func (o *Office) Dismiss(c *Courier) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.couriers[c.options.Room] == c {
		delete(o.couriers, c.options.Room)
	}
}

// Deliver takes a letter that arrived for the device. It is what [device.Options].Letter wants.
func (o *Office) Deliver(l device.Letter) {
	if l.Type != mediakeys.Type {
		return
	}
	letter, err := mediakeys.Parse(string(l.Sender), l.Content)
	if err != nil {
		o.dropped.Add(1)
		return
	}
	o.mu.Lock()
	c := o.couriers[id.RoomID(letter.Room)]
	o.mu.Unlock()
	if c == nil {
		o.dropped.Add(1)
		return
	}
	c.receive(letter)
}

// Dropped counts the letters that were no keys, or of calls that the device is not in.
func (o *Office) Dropped() uint64 { return o.dropped.Load() }
