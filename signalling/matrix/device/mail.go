package device

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	mailPause  = 500 * time.Millisecond // between two answers that had nothing in them
	sweepPause = time.Hour
	// indexLife is how long it is remembered which event had which place in its session. A repeated event that is older is
	// obeyed by nobody.
	indexLife = 24 * time.Hour
	// sessionLife is how long keys of others are kept that nobody renews. Clients renew theirs each week.
	sessionLife = 60 * 24 * time.Hour
	// maxHad is how many messages are taken in until the library forgets what it keeps of their senders.
	maxHad = 256
	// senderKeySize is the length of a key of Curve25519 in unpadded Base64.
	senderKeySize = 43
)

// mailLoop deals with mail until the device is no more, or ctx ends.
func (d *Device) mailLoop(ctx context.Context, l *life) error {
	since, err := l.store.GetNextBatch(ctx)
	if err != nil {
		return err
	}
	var swept time.Time
	had := 0 // messages since the library forgot
	for pause := firstPause; ; {
		began := d.options.Now()
		if began.Sub(swept) >= sweepPause {
			d.sweep(ctx, began)
			swept, had = began, maxHad
		}
		if had >= maxHad && l.using.TryLock() {
			err := d.renew(ctx, l)
			l.using.Unlock()
			if err != nil {
				return err
			}
			had = 0
		}
		m, err := l.agent.Mail(ctx, since)
		if err != nil {
			if !errors.Is(err, homeserver.ErrUnavailable) || !sleep(ctx, pause) {
				return err // it may be the device that is no more
			}
			d.log.Debug("no mail", "err", err)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = firstPause
		if err := d.deal(ctx, l, &m); err != nil {
			return err // the mail is had again
		}
		if err := l.store.PutNextBatch(ctx, m.Next); err != nil {
			return err
		}
		since = m.Next
		had += len(m.Events)
		if m.Empty() && !sleep(ctx, mailPause-d.options.Now().Sub(began)) {
			return nil
		}
	}
}

// deal takes in mail: first whose devices changed, for it may be they who write.
func (d *Device) deal(ctx context.Context, l *life, m *homeserver.Mail) error {
	if m.Gap {
		if _, err := l.store.DB.Exec(ctx, "UPDATE crypto_tracked_user SET devices_outdated = true"); err != nil {
			return err
		}
	}
	if len(m.Changed) > 0 {
		if err := l.store.MarkTrackedUsersOutdated(ctx, m.Changed); err != nil {
			return err
		}
	}
	for _, e := range m.Events {
		d.receive(ctx, l, e)
	}
	if m.OneTime >= 0 || len(m.Events) > 0 { // Dendrite does not count what is none; -1 has the library ask
		l.machine.HandleOTKCounts(ctx, &mautrix.OTKCount{SignedCurve25519: m.OneTime})
	}
	l.machine.MarkOlmHashSavePoint(ctx)
	return nil
}

// receive takes in one message. What is not encrypted counts only if it says that there is no key for us.
func (d *Device) receive(ctx context.Context, l *life, e *event.Event) {
	switch e.Type {
	case event.ToDeviceEncrypted, event.ToDeviceRoomKeyWithheld, event.ToDeviceOrgMatrixRoomKeyWithheld:
	default:
		return
	}
	if err := e.Content.ParseRaw(e.Type); err != nil {
		return
	}
	if e.Type != event.ToDeviceEncrypted {
		l.machine.HandleToDeviceEvent(ctx, e)
		return
	}
	if len(e.Content.AsEncrypted().SenderKey) != senderKeySize {
		return // no key; the library would remember it whatever its length
	}
	// Not HandleToDeviceEvent, which forgets what it decrypted unless it knows the type.
	decrypted := l.machine.HandleEncryptedEvent(ctx, e)
	if decrypted == nil || d.options.Letter == nil {
		return
	}
	letter := Letter{Type: decrypted.Type.Type, Sender: decrypted.Sender, Content: decrypted.Content.VeryRaw}
	if decrypted.SenderDevice != nil {
		letter.Device = decrypted.SenderDevice.DeviceID
	}
	d.options.Letter(letter)
}

// sweep forgets what nobody needs any more.
func (d *Device) sweep(ctx context.Context, now time.Time) {
	db := d.store.DB
	_, err := db.Exec(ctx, "DELETE FROM crypto_message_index WHERE timestamp < $1", now.Add(-indexLife).UnixMilli())
	if err == nil {
		_, err = db.Exec(ctx, "DELETE FROM crypto_megolm_inbound_session WHERE account_id=$1 AND received_at < $2", string(d.options.Agent.User()), now.Add(-sessionLife).UTC())
	}
	if err == nil {
		err = d.store.DeleteOldOlmHashes(ctx, now.Add(-indexLife)) // the library does sooner, if it lives for long enough
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("old keys are not removed", "err", err)
	}
}

// A Recipient is a device of somebody to whom a message goes.
type Recipient struct {
	User   id.UserID
	Device id.DeviceID
}

// Send encrypts a message for each of several devices and sends it. It returns those that it could not be sent to: their keys
// are not to be had. An error means that it was sent to none.
func (d *Device) Send(ctx context.Context, kind string, to []Recipient, content json.RawMessage) (missed []Recipient, err error) {
	l, done, err := d.alive()
	if err != nil {
		return nil, err
	}
	defer done()
	users := make(map[id.UserID]bool)
	for _, r := range to {
		users[r.User] = true
	}
	if err := l.refresh(ctx, users); err != nil {
		return nil, err
	}
	request := &mautrix.ReqSendToDevice{Messages: make(map[id.UserID]map[id.DeviceID]*event.Content)}
	for _, r := range to {
		if known, err := l.store.GetDevice(ctx, r.User, r.Device); err != nil {
			return nil, err
		} else if known == nil || known.Deleted {
			missed = append(missed, r)
			continue
		}
		if request.Messages[r.User] == nil {
			request.Messages[r.User] = make(map[id.DeviceID]*event.Content)
		}
		request.Messages[r.User][r.Device] = &event.Content{VeryRaw: content}
	}
	if len(request.Messages) == 0 {
		return missed, nil
	}
	sealed, err := l.machine.EncryptToDevices(ctx, eventType(kind, event.ToDeviceEventType), request)
	if err != nil {
		return nil, err
	}
	for user, devices := range request.Messages {
		for device := range devices {
			if sealed.Messages[user][device] == nil {
				missed = append(missed, Recipient{user, device})
			}
		}
	}
	_, err = l.machine.Client.SendToDevice(ctx, event.ToDeviceEncrypted, sealed)
	return missed, err
}

// refresh has the devices of users known and up to date.
func (l *life) refresh(ctx context.Context, users map[id.UserID]bool) error {
	outdated, err := l.store.GetOutdatedTrackedUsers(ctx)
	if err != nil {
		return err
	}
	var ask []id.UserID
	for _, user := range outdated {
		if users[user] {
			ask = append(ask, user)
		}
	}
	for user := range users {
		if known, err := l.store.GetDevices(ctx, user); err != nil {
			return err
		} else if known == nil {
			ask = append(ask, user)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	_, err = l.machine.FetchKeys(ctx, ask, true)
	return err
}
