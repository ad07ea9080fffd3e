package device

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.mau.fi/util/exsync"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// maxRooms bounds what is remembered of rooms. Of those beyond, one is forgotten: it gets a new session with the next event.
const maxRooms = 2048

// Rooms are what the library must know of rooms: how they are encrypted, and who has the key of our session there. Safe for
// concurrent use.
type rooms struct {
	agent homeserver.Agent
	locks exsync.KeyedMutex[id.RoomID] // one event of a room is encrypted at a time

	mu     sync.Mutex
	rules  map[id.RoomID]*event.EncryptionEventContent // of encrypted rooms: encryption is never turned off
	shared map[id.RoomID]crowd                         // who got the key of our session
}

// forget has every room get a new session: who has the key of the last one is not known any more.
func (r *rooms) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shared = nil
}

// encryption returns the rules of a room, nil if it is not encrypted.
func (r *rooms) encryption(ctx context.Context, room id.RoomID) (*event.EncryptionEventContent, error) {
	r.mu.Lock()
	rules := r.rules[room]
	r.mu.Unlock()
	if rules != nil {
		return rules, nil
	}
	rules = &event.EncryptionEventContent{}
	err := r.agent.State(ctx, room, event.StateEncryption, "", rules)
	switch {
	case homeserver.Code(err) == "M_NOT_FOUND":
		return nil, nil
	case err != nil:
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = put(r.rules, room, rules)
	return rules, nil
}

func put[V any](m map[id.RoomID]V, room id.RoomID, value V) map[id.RoomID]V {
	if m == nil {
		m = make(map[id.RoomID]V)
	}
	if _, known := m[room]; !known && len(m) >= maxRooms {
		for other := range m {
			delete(m, other)
			break
		}
	}
	m[room] = value
	return m
}

// had returns who has the key of the session in a room, zero if that is not known.
func (r *rooms) had(room id.RoomID) crowd {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shared[room]
}

func (r *rooms) have(room id.RoomID, who crowd) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shared = put(r.shared, room, who)
}

// A crowd is a hash of users and the keys of all their devices.
type crowd [sha256.Size]byte

// crowdOf hashes what the store knows of users, who are sorted.
func (l *life) crowdOf(ctx context.Context, users []id.UserID) (c crowd, err error) {
	hash := sha256.New()
	for _, user := range users {
		devices, err := l.store.GetDevices(ctx, user)
		if err != nil {
			return c, err
		}
		_, _ = fmt.Fprintf(hash, "%q", user) // a hash takes everything
		for _, name := range slices.Sorted(maps.Keys(devices)) {
			_, _ = fmt.Fprintf(hash, " %q %q", name, devices[name].IdentityKey)
		}
	}
	hash.Sum(c[:0])
	return c, nil
}

// IsEncrypted implements crypto.StateStore.
func (r *rooms) IsEncrypted(ctx context.Context, room id.RoomID) (bool, error) {
	rules, err := r.encryption(ctx, room)
	return rules != nil, err
}

// GetEncryptionEvent implements crypto.StateStore.
func (r *rooms) GetEncryptionEvent(ctx context.Context, room id.RoomID) (*event.EncryptionEventContent, error) {
	return r.encryption(ctx, room)
}

// GetHistoryVisibility implements crypto.StateStore: our sessions are handed on to nobody.
func (r *rooms) GetHistoryVisibility(context.Context, id.RoomID) (*event.HistoryVisibilityEventContent, error) {
	return &event.HistoryVisibilityEventContent{HistoryVisibility: event.HistoryVisibilityJoined}, nil
}

// FindSharedRooms implements crypto.StateStore: the library need not look after our sessions when devices change. Encrypt does,
// also when it was another device of this program's that heard of the change.
func (r *rooms) FindSharedRooms(context.Context, id.UserID) ([]id.RoomID, error) { return nil, nil }

// Encrypt makes of an event what is sent in its place, as m.room.encrypted, into a room that the user is in, and gives the
// devices of everybody who is in the room the key. What it relates to stays readable.
func (d *Device) Encrypt(ctx context.Context, room id.RoomID, kind string, content any) (json.RawMessage, error) {
	l, done, err := d.alive()
	if err != nil {
		return nil, err
	}
	defer done()
	defer d.rooms.locks.WithLock(room)()
	members, err := d.options.Agent.JoinedMembers(ctx, room)
	if err != nil {
		return nil, err
	}
	users := make(map[id.UserID]bool, len(members))
	for _, user := range members {
		users[user] = true
	}
	if err := l.refresh(ctx, users); err != nil {
		return nil, err
	}
	who, err := l.crowdOf(ctx, members)
	if err != nil {
		return nil, err
	}
	if d.rooms.had(room) != who {
		// Somebody came who must not read what was before, or left and must not read what comes.
		if err := l.store.RemoveOutboundGroupSession(ctx, room); err != nil {
			return nil, err
		}
	}
	d.rooms.have(room, who)
	if err := l.machine.ShareGroupSession(ctx, room, members); err != nil {
		return nil, fmt.Errorf("give out the key for %s: %w", room, err)
	}
	sealed, err := l.machine.EncryptMegolmEvent(ctx, room, eventType(kind, event.MessageEventType), content)
	if err != nil {
		return nil, fmt.Errorf("encrypt for %s: %w", room, err)
	}
	return json.Marshal(sealed)
}

// trusted are the states of a session whose key came from a device of the event's sender itself.
var trusted = []id.TrustState{
	id.TrustStateUnset, id.TrustStateCrossSignedUntrusted, id.TrustStateCrossSignedTOFU, id.TrustStateCrossSignedVerified, id.TrustStateVerified,
}

// Decrypt opens an event of type m.room.encrypted, which it leaves as it is. The error may be or wrap ErrNoKey, ErrWithheld
// or ErrForged.
func (d *Device) Decrypt(ctx context.Context, e *event.Event) (*event.Event, error) {
	l, done, err := d.alive()
	if err != nil {
		return nil, err
	}
	defer done()
	sealed := *e
	sealed.Content = event.Content{VeryRaw: e.Content.VeryRaw}
	if err := sealed.Content.ParseRaw(event.EventEncrypted); err != nil {
		return nil, err
	}
	opened, err := l.machine.DecryptMegolmEvent(ctx, &sealed)
	if err == nil && opened.Mautrix.TrustState == id.TrustStateUnknownDevice {
		// The library asks once for each key. Ask again: the homeserver may not have answered, or not have known.
		if _, err := l.machine.FetchKeys(ctx, []id.UserID{e.Sender}, true); err != nil {
			return nil, err
		}
		opened, err = l.machine.DecryptMegolmEvent(ctx, &sealed)
	}
	switch {
	case errors.Is(err, crypto.ErrGroupSessionWithheld):
		return nil, fmt.Errorf("%w: %w", ErrWithheld, err)
	case errors.Is(err, crypto.ErrNoSessionFound), errors.Is(err, olm.ErrUnknownMessageIndex):
		return nil, fmt.Errorf("%w: %w", ErrNoKey, err)
	case err != nil:
		return nil, err
	case !slices.Contains(trusted, opened.Mautrix.TrustState):
		return nil, fmt.Errorf("%w: %s", ErrForged, opened.Mautrix.TrustState)
	}
	return opened, nil
}

// AskForKey asks the device that encrypted an event, and the sender's others, for its key.
func (d *Device) AskForKey(ctx context.Context, e *event.Event) error {
	l, done, err := d.alive()
	if err != nil {
		return err
	}
	defer done()
	var c event.EncryptedEventContent
	if err := json.Unmarshal(e.Content.VeryRaw, &c); err != nil {
		return err
	}
	return l.machine.SendRoomKeyRequest(ctx, e.RoomID, c.SenderKey, c.SessionID, "", map[id.UserID][]id.DeviceID{e.Sender: {"*"}})
}

// SessionOf is the session by whose key an encrypted event can be read, empty if it says none.
func SessionOf(e *event.Event) id.SessionID {
	var c struct {
		Session id.SessionID `json:"session_id"`
	}
	_ = json.Unmarshal(e.Content.VeryRaw, &c)
	return c.Session
}
