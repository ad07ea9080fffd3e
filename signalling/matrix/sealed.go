package matrix

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/courier"
	"callserver/signalling/matrix/device"
)

// Events of encrypted rooms are read by the bot's device, each in the queue of its room, apart from the queue of the room's
// commands. An event whose key has not arrived is put on the [shelf]; when the key arrives it is read, and if it does not, the
// key is asked for once, and then the room is told, once a day.

const (
	devicePrefix = "CALLSERVER"
	deviceName   = "callserver's bot"
	shelfPause   = 5 * time.Second
	keyPatience  = 10 * time.Second // then the key is asked for
	keyDeadline  = time.Minute      // then the room is told
	complainOnce = 24 * time.Hour
	maxComplaint = 2_000 // rooms
)

var errNoVault = errors.New("the room is encrypted, and there are no keys for it: give data.file a file")

// equip makes the bot's device at a homeserver, if there is a place for its keys.
func (b *Bot) equip(ctx context.Context, in *inbox) error {
	if b.options.Vault == nil {
		return nil
	}
	agent, err := in.hs.As(in.hs.Sender())
	if err != nil {
		return err
	}
	hs := in.hs
	in.device, err = device.New(ctx, device.Options{
		Agent: agent, Vault: *b.options.Vault, Prefix: devicePrefix, Name: deviceName, Now: b.now, Logger: b.log,
		Born:   func(ctx context.Context, birth device.Birth) { b.born(ctx, hs, birth) },
		Keys:   func(_ id.RoomID, session id.SessionID) { b.shelf.arrived(session, b.now()) },
		Letter: in.office.Deliver,
	})
	return err
}

// device is the bot's at a homeserver, nil if it has none.
func (b *Bot) device(h *homeserver.Homeserver) *device.Device { return b.inbox(h).device }

func (b *Bot) inbox(h *homeserver.Homeserver) inbox {
	for _, in := range b.inboxes {
		if in.hs == h {
			return in
		}
	}
	return inbox{}
}

// Courier has the bot take part in the media keys of a room's call, as a member with its device at a homeserver: before its
// membership is sent. The device and the time are the bot's to choose. The caller has the courier run, and dismisses it from
// the office when the bot leaves.
func (b *Bot) Courier(h *homeserver.Homeserver, o courier.Options) (*courier.Courier, *courier.Office, error) {
	in := b.inbox(h)
	if in.device == nil {
		return nil, nil, courier.ErrNoDevice
	}
	o.Device, o.Now, o.Logger = in.device, b.now, b.log
	c, err := in.office.Engage(o)
	return c, in.office, err
}

// sealed has an encrypted event read if it may be a command.
func (b *Bot) sealed(ctx context.Context, in inbox, e *event.Event) {
	if in.device == nil || b.options.Silent && b.options.Bridge == nil || e.StateKey != nil || b.one(e.Sender) || !isUser(e.Sender) {
		return
	}
	if b.now().Sub(time.UnixMilli(e.Timestamp)) > stale || !b.options.Servers.Permits(homeserver.ServerOf(e.Sender)) {
		return
	}
	b.readSoon(ctx, unread{hs: in.hs, event: e, since: b.now()})
}

// readSoon has an event opened in its turn, and goes on as if it had come like that.
func (b *Bot) readSoon(ctx context.Context, u unread) {
	b.enqueue(ctx, reading(u), "", func(job context.Context) {
		switch opened := b.read(job, u); {
		case opened == nil:
		case opened.Type == event.EventMessage:
			b.said(ctx, u.hs, opened)
		case b.options.Bridge != nil:
			b.options.Bridge.Hear(u.hs, opened)
		}
	})
}

// reading is the queue in which the events of a room are opened.
func reading(u unread) string { return "read " + string(u.event.RoomID) }

// read opens an event. It returns nil if that cannot be done now.
func (b *Bot) read(ctx context.Context, u unread) *event.Event {
	opened, err := b.device(u.hs).Decrypt(ctx, u.event)
	switch {
	case err == nil:
		return opened
	case errors.Is(err, device.ErrNoKey), errors.Is(err, homeserver.ErrUnavailable):
		if !b.shelf.put(u) {
			b.counters.dropped.Add(1)
		}
	default:
		b.counters.unreadable.Add(1)
		b.log.Debug("an encrypted event is not read", "homeserver", u.hs.Name(), "room", u.event.RoomID, "user", u.event.Sender, "err", err)
		if errors.Is(err, device.ErrWithheld) {
			b.complain(ctx, u)
		}
	}
	return nil
}

// shelfLoop has events read whose keys arrived, and does something about those whose do not.
func (b *Bot) shelfLoop(ctx context.Context) {
	ticker := time.NewTicker(shelfPause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.shelf.ready:
		case <-ticker.C:
		}
		due := b.shelf.take(b.now())
		for _, u := range due.readable {
			b.readSoon(ctx, u)
		}
		for _, u := range due.late {
			b.enqueue(ctx, reading(u), "", func(ctx context.Context) { b.askForKey(ctx, u) })
		}
		for _, u := range due.lost {
			b.counters.unreadable.Add(1)
			b.enqueue(ctx, reading(u), "complain", func(ctx context.Context) { b.complain(ctx, u) })
		}
	}
}

func (b *Bot) askForKey(ctx context.Context, u unread) {
	if err := b.device(u.hs).AskForKey(ctx, u.event); err != nil {
		b.log.Debug("a key is not asked for", "homeserver", u.hs.Name(), "room", u.event.RoomID, "err", err)
	}
}

// complain says in a room, once a day, that somebody there cannot be read.
func (b *Bot) complain(ctx context.Context, u unread) {
	now := b.now()
	s := seat{u.hs, u.event.RoomID}
	if _, said := b.complaints.Get(s, now); said {
		return
	}
	b.complaints.Put(s, struct{}{}, now, now.Add(complainOnce))
	b.send(ctx, u.hs, u.event.RoomID, transaction(u.event.ID, "unreadable"), notice(say(
		fmt.Sprintf("I cannot read what %s writes here: I have not been given the key. If it was a command for me, please write it again.", u.event.Sender),
		"If that does not help, their client gives keys to verified devices only, and mine is not one of them to it.",
	)))
}

// born tells the encrypted rooms that the bot has another device, if its former keys are lost.
func (b *Bot) born(run context.Context, h *homeserver.Homeserver, birth device.Birth) {
	b.shelf.revive()
	if birth.Lost == "" || b.options.Silent {
		return
	}
	b.enqueue(run, "new device at "+h.Name(), "", func(ctx context.Context) {
		agent, err := h.As(h.Sender())
		if err != nil {
			return
		}
		rooms, err := agent.JoinedRooms(ctx)
		if err != nil {
			b.counters.failures.Add(1)
			b.log.Warn("rooms are not told of the bot's new device", "homeserver", h.Name(), "err", err)
			return
		}
		for _, room := range rooms {
			b.enqueue(run, string(room), "new device", func(ctx context.Context) { b.confess(ctx, h, room, birth) })
		}
	})
}

// confess tells a room, if it is encrypted.
func (b *Bot) confess(ctx context.Context, h *homeserver.Homeserver, room id.RoomID, birth device.Birth) {
	if encrypted, err := b.device(h).Encrypted(ctx, room); err != nil || !encrypted {
		return
	}
	text := fmt.Sprintf("My keys were lost, so I am here with a new device, %s. What was written to me before I cannot read any more: please write commands again.", birth.Device)
	if !birth.Signed {
		text += " It is not signed yet, so clients that trust signed devices only do not let me read."
	}
	sum := sha256.Sum256([]byte(string(birth.Device) + " " + string(room)))
	b.send(ctx, h, room, "callserver-"+base64.RawURLEncoding.EncodeToString(sum[:12]), notice(say(text)))
}

// seal makes of an event what is sent into a room: the event itself where nothing is encrypted.
func (b *Bot) seal(ctx context.Context, h *homeserver.Homeserver, agent homeserver.Agent, room id.RoomID, kind event.Type, content any) (event.Type, any, error) {
	d := b.device(h)
	if d == nil {
		var rules json.RawMessage
		err := agent.State(ctx, room, event.StateEncryption, "", &rules)
		switch {
		case homeserver.Code(err) == "M_NOT_FOUND":
			return kind, content, nil
		case err == nil:
			err = errNoVault
		}
		return event.Type{}, nil, err
	}
	encrypted, err := d.Encrypted(ctx, room)
	if err != nil || !encrypted {
		return kind, content, err
	}
	sealed, err := d.Encrypt(ctx, room, kind.Type, content)
	return event.EventEncrypted, sealed, err
}
