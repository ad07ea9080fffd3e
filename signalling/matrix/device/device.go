// A Device is one device of a Matrix user for whom this program acts, as others encrypt for it: the bot's, and one for each
// user who takes part in an encrypted call without a client. Package device owns its keys and their store, its place at the
// homeserver, and what goes in and out encrypted: events of rooms by Megolm, messages to single devices by Olm. It never
// decides what a message means, and tells nobody about keys but those who are to have them.
//
// # What survives
//
// The device, its keys and the place in its mail are in the data file, sealed with the key of a file beside it. Mail counts
// as had when it was dealt with; mail that comes twice does nothing. If the store is lost or cannot be opened, or other
// keys are at the homeserver under its name, a new device takes its place, and the former is removed: see [Birth].
// What signs the devices of the user, so that clients trust them (MSC4153), is kept at the homeserver, sealed with the recovery
// key of a file that the operator chooses: see [Recovery].
package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	firstPause = time.Second // after something went wrong, doubled up to maxPause
	maxPause   = time.Minute
)

var (
	// ErrNotReady means that the device has no place at the homeserver now. It may have one in a moment.
	ErrNotReady = fmt.Errorf("the device is not ready: %w", homeserver.ErrUnavailable)
	// ErrNoKey means that nobody gave us the key of an event: it may come yet.
	ErrNoKey = errors.New("its key has not arrived")
	// ErrWithheld means that the sender refused us the key.
	ErrWithheld = errors.New("its sender withholds the key")
	// ErrForged means that an event is not by a device of the user who is said to have sent it.
	ErrForged = errors.New("it was encrypted by no device of its sender")
)

// A Vault is where the keys of devices are kept.
type Vault struct {
	Database *dbutil.Database // shared with others; the tables of keys are mautrix's
	Key      []byte           // what seals them, of [LoadKey]
	Recovery *Recovery
}

// Options of a Device. Agent, Vault, Prefix and Name are required.
type Options struct {
	Agent  homeserver.Agent // of the user, made by Homeserver.As
	Vault  Vault
	Prefix string // of the ids of our devices of this user: one that has it, and is not in the vault, was lost
	Name   string // for people who look at the list of devices

	// What Run tells, and waits for.
	Born   func(context.Context, Birth)  // a device took up its place; with the context of Run
	Keys   func(id.RoomID, id.SessionID) // the key of a session arrived
	Letter func(Letter)                  // a message for this device that is none of the library's own

	Now    func() time.Time // nil means time.Now
	Logger *slog.Logger     // nil means none
}

// A Birth is how a device took up its place.
type Birth struct {
	Device id.DeviceID
	New    bool   // it is another one than before, or the first
	Lost   string // why there is another one than before; empty if there was none
	Signed bool   // it is signed by its user: clients that trust no others (MSC4153) give it keys
}

// A Letter is a message that was encrypted with Olm for this device.
type Letter struct {
	Type    string
	Sender  id.UserID   // proved
	Device  id.DeviceID // of the sender, proved; empty if its keys could not be had
	Content []byte
}

// A Device is safe for concurrent use; made by [New].
type Device struct {
	options Options
	log     *slog.Logger
	store   *crypto.SQLCryptoStore // of no device, for its tables
	rooms   rooms
	life    atomic.Pointer[life] // nil while there is none
}

// A life is a device from its login until its place is gone.
type life struct {
	device id.DeviceID
	agent  homeserver.Agent // as the device

	using   sync.RWMutex // held for reading while the two are used, save by mailLoop, which alone replaces them
	store   *crypto.SQLCryptoStore
	machine *crypto.OlmMachine
}

// New prepares the tables. The device does nothing until Run is called.
func New(ctx context.Context, o Options) (*Device, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Device{
		options: o, log: o.Logger.With("user", o.Agent.User()),
		store: newStore(o, ""),
	}
	d.rooms.agent = o.Agent
	if err := d.store.DB.Upgrade(ctx); err != nil {
		return nil, fmt.Errorf("prepare the tables of keys: %w", err)
	}
	return d, nil
}

// Run has the device take up its place and deals with its mail until ctx ends, which is no error.
func (d *Device) Run(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		began := d.options.Now()
		err := d.live(ctx)
		if d.options.Now().Sub(began) > maxPause {
			pause = firstPause
		}
		level := slog.LevelWarn
		if errors.Is(err, homeserver.ErrUnavailable) {
			level = slog.LevelDebug // the connection says so itself
		}
		if ctx.Err() == nil {
			d.log.Log(ctx, level, "no encryption for now: encrypted rooms are not read", "again_in", pause, "err", err)
		}
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// live is one life.
func (d *Device) live(ctx context.Context) error {
	l, birth, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() { l.machine.Destroy() }() // the one that it has by then
	d.log.Info("encryption is ready", "device", birth.Device, "new", birth.New, "signed", birth.Signed)
	if birth.Lost != "" {
		d.log.Warn("a new device takes the place of the former: clients show it as new, and what was written to the former is not read", "device", birth.Device, "reason", birth.Lost)
	}
	d.rooms.forget()
	d.life.Store(l)
	defer d.life.Store(nil)
	if d.options.Born != nil {
		d.options.Born(ctx, birth)
	}
	return d.mailLoop(ctx, l)
}

// alive returns the life, and what to call when done with it, or ErrNotReady.
func (d *Device) alive() (l *life, done func(), err error) {
	if l = d.life.Load(); l == nil {
		return nil, nil, ErrNotReady
	}
	l.using.RLock()
	return l, l.using.RUnlock, nil
}

// ID is the device's id while it has a place, else empty.
func (d *Device) ID() id.DeviceID {
	if l := d.life.Load(); l != nil {
		return l.device
	}
	return ""
}

// User is whose device it is.
func (d *Device) User() id.UserID { return d.options.Agent.User() }

// Changed says that a user's devices may be others than those that we know, because nobody told us while the user shared no
// room with us.
func (d *Device) Changed(ctx context.Context, user id.UserID) error {
	return d.store.MarkTrackedUsersOutdated(ctx, []id.UserID{user})
}

// Encrypted reports whether events of a room are to be encrypted.
func (d *Device) Encrypted(ctx context.Context, room id.RoomID) (bool, error) {
	return d.rooms.IsEncrypted(ctx, room)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// eventType makes an event type of a name and a class.
func eventType(name string, class event.TypeClass) event.Type {
	return event.Type{Type: name, Class: class}
}
