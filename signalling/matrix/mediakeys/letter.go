package mediakeys

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Type is the type of the to-device messages that carry media keys, encrypted with Olm.
const Type = "io.element.call.encryption_keys"

// What a secret of others may have: 16 bytes today, 32 in the newest text of MSC4143.
const (
	minSecret = 16
	maxSecret = 64
	maxText   = 255 // bytes of an id
)

var (
	// ErrNoKey means that a message carries no media key.
	ErrNoKey = errors.New("no media key")
	// ErrOtherSession means that the key is for something else than the ordinary call of a room.
	ErrOtherSession = errors.New("a media key of another session")
)

// A Letter is a key of somebody for the ordinary call of a room, as it arrived.
type Letter struct {
	Room   string
	From   Peer   // whose device is that person's own word: see Parse
	Member string // id of the membership; empty from some
	Key
	Sent time.Time // by the sender's clock; zero if unsaid
}

// content is what is sent. "keys" is one key despite its name.
type content struct {
	Keys    keys     `json:"keys"`
	Room    string   `json:"room_id"`
	Member  claimant `json:"member"`
	Session session  `json:"session"`
	Sent    float64  `json:"sent_ts"` // ms since 1970
}

type keys struct {
	Index  *int   `json:"index"`
	Secret string `json:"key"`
}

type claimant struct {
	ID     string `json:"id"`
	Device string `json:"claimed_device_id"`
}

type session struct {
	Application string `json:"application"`
	Call        string `json:"call_id"`
	Scope       string `json:"scope"`
}

// Parse reads the content of a message that was decrypted, and whose sender that proved. Which of the sender's devices is
// in the call the content claims: nobody can claim it but the sender. The error is or wraps ErrNoKey or ErrOtherSession.
func Parse(sender string, text []byte) (Letter, error) {
	var c content
	if err := json.Unmarshal(text, &c); err != nil {
		return Letter{}, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	switch {
	case c.Keys.Index == nil || *c.Keys.Index < 0 || *c.Keys.Index > 255:
		return Letter{}, fmt.Errorf("%w: it has no index from 0 to 255", ErrNoKey)
	case c.Room == "" || len(c.Room) > maxText || c.Member.Device == "" || len(c.Member.Device) > maxText || len(c.Member.ID) > 2*maxText:
		return Letter{}, fmt.Errorf("%w: room_id or member.claimed_device_id is missing or too long", ErrNoKey)
	case c.Session.Application != "m.call" || c.Session.Call != "" && c.Session.Call != "ROOM":
		return Letter{}, ErrOtherSession
	case len(c.Keys.Secret) > 2*maxSecret:
		return Letter{}, fmt.Errorf("%w: it is too long", ErrNoKey)
	}
	secret, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(c.Keys.Secret, "="))
	if err != nil || len(secret) < minSecret || len(secret) > maxSecret {
		return Letter{}, fmt.Errorf("%w: it is no base64 of %d to %d bytes", ErrNoKey, minSecret, maxSecret)
	}
	l := Letter{
		Room: c.Room, From: Peer{sender, c.Member.Device}, Member: c.Member.ID,
		Key: Key{Index: uint8(*c.Keys.Index), Secret: secret},
	}
	if c.Sent > 0 && c.Sent < 1e15 {
		l.Sent = time.UnixMilli(int64(c.Sent))
	}
	return l, nil
}

// Content is what a device sends to the others: the content of a message, before it is encrypted.
func (l Letter) Content() json.RawMessage {
	index := int(l.Index)
	text, _ := json.Marshal(content{ // of text and numbers: no error
		Keys: keys{&index, base64.StdEncoding.EncodeToString(l.Secret)}, Room: l.Room,
		Member:  claimant{l.Member, l.From.Device},
		Session: session{Application: "m.call", Scope: "m.room"},
		Sent:    float64(l.Sent.UnixMilli()),
	})
	return text
}
