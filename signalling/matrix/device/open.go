package device

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
)

func newStore(o Options, device id.DeviceID) *crypto.SQLCryptoStore {
	return crypto.NewSQLCryptoStore(o.Vault.Database, dbutil.NoopLogger, string(o.Agent.User()), device, o.Vault.Key)
}

// open takes up the device's place: that of the store, or a new one.
func (d *Device) open(ctx context.Context) (*life, Birth, error) {
	there, err := d.options.Agent.Devices(ctx)
	if err != nil {
		return nil, Birth{}, err
	}
	ours := slices.DeleteFunc(there, func(device id.DeviceID) bool { return !strings.HasPrefix(string(device), d.options.Prefix) })
	var birth Birth
	if len(ours) > 0 {
		birth.Lost = "the store of its keys is gone"
	}
	device, err := d.stored(ctx)
	if err != nil {
		birth.Lost = "the store of its keys cannot be opened: " + err.Error()
		device = ""
	}
	if device != "" {
		l, err := d.enter(ctx, device)
		if err == nil {
			birth.Device, birth.Lost = device, ""
			return d.settle(ctx, l, birth, ours)
		}
		if !errors.Is(err, errOthersKeys) {
			return nil, Birth{}, err
		}
		birth.Lost = err.Error()
	}
	if device, err = d.conceive(ctx); err != nil {
		return nil, Birth{}, err
	}
	l, err := d.enter(ctx, device)
	if err != nil {
		return nil, Birth{}, err
	}
	birth.Device, birth.New = device, true
	return d.settle(ctx, l, birth, ours)
}

// settle signs a device that has its place, and removes those whose place it takes.
func (d *Device) settle(ctx context.Context, l *life, birth Birth, former []id.DeviceID) (*life, Birth, error) {
	signed, err := d.sign(ctx, l)
	if err != nil {
		l.machine.Destroy()
		return nil, Birth{}, err
	}
	birth.Signed = signed
	for _, other := range former {
		if other == birth.Device {
			continue
		}
		if err := d.remove(ctx, other); err != nil {
			d.log.Warn("a former device is not removed: clients go on encrypting for it", "device", other, "err", err)
		}
	}
	return l, birth, nil
}

// remove ends a former device of ours. Logging in as one is the way to remove it without the password, which there is none of.
func (d *Device) remove(ctx context.Context, device id.DeviceID) error {
	agent, err := d.options.Agent.LogIn(ctx, device, d.options.Name)
	if err != nil {
		return err
	}
	return agent.LogOut(ctx)
}

// stored returns the device of the store, empty if there is none.
func (d *Device) stored(ctx context.Context) (id.DeviceID, error) {
	store := newStore(d.options, "")
	device, err := store.FindDeviceID(ctx)
	if err != nil || device == "" {
		return "", err
	}
	_, err = store.GetAccount(ctx)
	return device, err
}

// conceive makes the keys of a new device in the store, in place of any that are there.
func (d *Device) conceive(ctx context.Context) (id.DeviceID, error) {
	device := id.DeviceID(d.options.Prefix + rand.Text()[:8])
	if err := discard(ctx, d.store.DB, string(d.options.Agent.User())); err != nil {
		return "", err
	}
	return device, newStore(d.options, device).PutAccount(ctx, crypto.NewOlmAccount())
}

// ofAccount are the tables in which an account has rows.
var ofAccount = []string{
	"crypto_olm_message_hash", "crypto_olm_session", "crypto_megolm_inbound_session", "crypto_megolm_outbound_session", "crypto_secrets", "crypto_account",
}

// discard removes everything of an account.
func discard(ctx context.Context, db *dbutil.Database, account string) error {
	return db.DoTxn(ctx, nil, func(ctx context.Context) error {
		for _, table := range ofAccount {
			if _, err := db.Exec(ctx, "DELETE FROM "+table+" WHERE account_id=$1", account); err != nil {
				return fmt.Errorf("discard the keys of a former device: %w", err)
			}
		}
		return nil
	})
}

// errOthersKeys means that our keys do not count at the homeserver.
var errOthersKeys = errors.New("the homeserver has other keys for it")

// enter logs the device of the store in and has the homeserver know its keys.
func (d *Device) enter(ctx context.Context, device id.DeviceID) (*life, error) {
	agent, err := d.options.Agent.LogIn(ctx, device, d.options.Name)
	if err != nil {
		return nil, err
	}
	l := &life{device: device, agent: agent}
	if err := d.load(ctx, l); err != nil {
		return nil, err
	}
	if err := d.present(ctx, l); err != nil {
		l.machine.Destroy()
		return nil, err
	}
	return l, nil
}

// load gives a life the library's part, with the keys of the store.
func (d *Device) load(ctx context.Context, l *life) error {
	store := newStore(d.options, l.device)
	machine := crypto.NewOlmMachine(l.agent.Client(), libraryLog(d.log), store, &d.rooms)
	machine.DontStoreOutboundKeys = true // nobody reads here what it said itself
	machine.IgnorePostDecryptionParseErrors = true
	machine.DisableRatchetTracking = true // one write less for each event that is read
	machine.SessionReceived = func(_ context.Context, room id.RoomID, session id.SessionID, _ uint32) {
		if d.options.Keys != nil {
			d.options.Keys(room, session)
		}
	}
	if err := machine.Load(ctx); err != nil {
		machine.Destroy()
		return err
	}
	l.store, l.machine = store, machine
	return nil
}

// renew has the library forget what is in the store, too. It keeps every session with a device, and every sender of what it
// could not read, for as long as it lives, and anybody can send any number of messages. Nobody else uses it meanwhile.
func (d *Device) renew(ctx context.Context, l *life) error {
	former := l.machine
	former.Destroy() // what it does by itself ends before others go on with the same sessions
	if err := d.load(ctx, l); err != nil {
		return fmt.Errorf("load the keys of our device again: %w", err)
	}
	l.machine.CrossSigningKeys = former.CrossSigningKeys
	l.machine.GetAccount().Shared = former.GetAccount().Shared
	return nil
}

// present has the keys at the homeserver.
func (d *Device) present(ctx context.Context, l *life) error {
	user := d.options.Agent.User()
	known, err := l.machine.Client.QueryKeys(ctx, &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: {l.device}}})
	if err != nil {
		return fmt.Errorf("ask for the keys of our device: %w", err)
	}
	account := l.machine.GetAccount()
	there := known.DeviceKeys[user][l.device]
	switch key := there.Keys.GetEd25519(l.device); {
	case len(there.Keys) == 0:
		account.Shared = false // even if they were there before
	case key != account.SigningKey():
		return errOthersKeys
	default:
		account.Shared = true // even if we did not live to note it
	}
	if err := l.machine.ShareKeys(ctx, -1); err != nil {
		return fmt.Errorf("publish the keys of our device: %w", err)
	}
	return nil
}

// libraryLog has the library's warnings in our log, without what they are about: there are keys in it.
func libraryLog(log *slog.Logger) *zerolog.Logger {
	logger := zerolog.New(io.Discard).Level(zerolog.WarnLevel).Hook(zerolog.HookFunc(func(_ *zerolog.Event, _ zerolog.Level, message string) {
		log.Debug("crypto library", "says", message)
	}))
	return &logger
}
