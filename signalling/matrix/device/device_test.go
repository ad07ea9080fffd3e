package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// each runs a test before both kinds of homeserver.
func each(t *testing.T, test func(t *testing.T, k *keyserver, server string)) {
	for name, logins := range map[string]bool{"devices that are acted as": false, "devices that log in": true} {
		t.Run(name, func(t *testing.T) {
			k := newKeyserver(logins)
			test(t, k, serve(t, k))
		})
	}
}

func (k *keyserver) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	k.changed.Broadcast()
}

func TestFirstDeviceIsSigned(t *testing.T) {
	each(t, func(t *testing.T, k *keyserver, server string) {
		d := k.open(t, server, bot, t.TempDir())
		b := next(t, "the birth", d.births)
		if !b.New || b.Lost != "" || !b.Signed || b.Device != d.ID() || !strings.HasPrefix(string(b.Device), "TEST") {
			t.Errorf("got %+v", b)
		}
		text, err := os.ReadFile(filepath.Join(d.directory, "recovery"))
		if err != nil || !strings.HasPrefix(string(text), string(bot)+" ") {
			t.Errorf("the recovery file has %q, %v", text, err)
		}
		if info, err := os.Stat(filepath.Join(d.directory, "recovery")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the recovery file has mode %v, %v", info.Mode(), err)
		}
	})
}

func TestDeviceStaysTheSame(t *testing.T) {
	each(t, func(t *testing.T, k *keyserver, server string) {
		d := k.open(t, server, bot, t.TempDir())
		first := next(t, "the birth", d.births)
		d.stop()
		again := next(t, "the second birth", k.open(t, server, bot, d.directory).births)
		if again != (Birth{Device: first.Device, Signed: true}) {
			t.Errorf("got %+v after %+v", again, first)
		}
	})
}

// TestLostStore has a new device take the former's place, signed by the same user.
func TestLostStore(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(directory string) error
		lost  string
	}{
		{"removed", func(dir string) error { return os.Remove(filepath.Join(dir, "data.db")) }, "gone"},
		{"its key removed", func(dir string) error { return os.Remove(filepath.Join(dir, "data.db.key")) }, "cannot be opened"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			each(t, func(t *testing.T, k *keyserver, server string) {
				d := k.open(t, server, bot, t.TempDir())
				first := next(t, "the birth", d.births)
				d.stop()
				if err := tc.spoil(d.directory); err != nil {
					t.Fatal(err)
				}
				b := next(t, "the second birth", k.open(t, server, bot, d.directory).births)
				if !b.New || !strings.Contains(b.Lost, tc.lost) || !b.Signed || b.Device == first.Device {
					t.Errorf("got %+v", b)
				}
				k.mu.Lock()
				defer k.mu.Unlock()
				if k.devices[bot][string(first.Device)] != nil || len(k.devices[bot]) != 1 {
					t.Errorf("the former device is still there: %v", k.devices[bot])
				}
			})
		})
	}
}

// TestLostRecoveryKey has new keys made where the homeserver takes them, and goes on unsigned elsewhere.
func TestLostRecoveryKey(t *testing.T) {
	each(t, func(t *testing.T, k *keyserver, server string) {
		d := k.open(t, server, bot, t.TempDir())
		next(t, "the birth", d.births)
		d.stop()
		if err := errors.Join(os.Remove(filepath.Join(d.directory, "recovery")), os.Remove(filepath.Join(d.directory, "data.db"))); err != nil {
			t.Fatal(err)
		}
		if b := next(t, "the second birth", k.open(t, server, bot, d.directory).births); b.Signed == k.logins {
			t.Errorf("got %+v", b)
		}
	})
}

func TestOtherKeysAtTheHomeserver(t *testing.T) {
	each(t, func(t *testing.T, k *keyserver, server string) {
		d := k.open(t, server, bot, t.TempDir())
		first := next(t, "the birth", d.births)
		d.stop()
		k.set(func() {
			keys := k.devices[bot][string(first.Device)].keys["keys"].(object)
			keys["ed25519:"+string(first.Device)] = strings.Repeat("A", 43)
		})
		if b := next(t, "the second birth", k.open(t, server, bot, d.directory).births); !b.New || b.Lost == "" || b.Device == first.Device {
			t.Errorf("got %+v", b)
		}
	})
}

func TestLetters(t *testing.T) {
	each(t, func(t *testing.T, k *keyserver, server string) {
		us, them := k.open(t, server, bot, t.TempDir()), k.open(t, server, alice, t.TempDir())
		next(t, "our birth", us.births)
		next(t, "their birth", them.births)
		missed, err := us.Send(t.Context(), "org.example.letter", []Recipient{{alice, them.ID()}, {alice, "ABSENT"}}, json.RawMessage(`{"text":"hello"}`))
		if err != nil || len(missed) != 1 || missed[0].Device != "ABSENT" {
			t.Fatalf("missed %v, %v", missed, err)
		}
		l := next(t, "the letter", them.letters)
		if l.Type != "org.example.letter" || l.Sender != bot || l.Device != us.ID() || string(l.Content) != `{"text":"hello"}` {
			t.Errorf("got %+v %s", l, l.Content)
		}

		them.stop()
		if _, err := us.Send(t.Context(), "org.example.letter", []Recipient{{alice, l.Device}, {alice, id.DeviceID(k.only(alice))}}, json.RawMessage(`{"text":"while you slept"}`)); err != nil {
			t.Fatal(err)
		}
		them = k.open(t, server, alice, them.directory)
		if l := next(t, "the letter of the night", them.letters); string(l.Content) != `{"text":"while you slept"}` {
			t.Errorf("got %s", l.Content)
		}
	})
}

// TestStrangersAreForgotten has more messages come than are dealt with at a time, by senders of whom nothing is known. The
// library has nothing of them in memory afterwards, and the device still gets its letters, by the same sessions.
func TestStrangersAreForgotten(t *testing.T) {
	each(t, func(t *testing.T, k *keyserver, server string) {
		us, them := k.open(t, server, bot, t.TempDir()), k.open(t, server, alice, t.TempDir())
		next(t, "our birth", us.births)
		next(t, "their birth", them.births)
		write := func(text string) {
			t.Helper()
			missed, err := them.Send(t.Context(), "org.example.letter", []Recipient{{bot, us.ID()}}, json.RawMessage(`{"text":"`+text+`"}`))
			if err != nil || len(missed) > 0 {
				t.Fatalf("missed %v, %v", missed, err)
			}
			if l := next(t, "the letter", us.letters); string(l.Content) != `{"text":"`+text+`"}` {
				t.Fatalf("got %s", l.Content)
			}
		}
		write("before")
		l := us.life.Load()
		known := func() int {
			return reflect.ValueOf(l.machine.CryptoStore).Elem().FieldByName("olmSessionCache").Len()
		}
		stranger := func(key string) object {
			return object{"type": "m.room.encrypted", "sender": "@mallory:example.org", "content": object{
				"algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": key,
				"ciphertext": object{string(l.machine.GetAccount().IdentityKey()): object{"type": 1, "body": "AAAA"}},
			}}
		}
		long, _ := json.Marshal(stranger(strings.Repeat("A", 60_000))) // strings always encode
		var e event.Event
		if err := json.Unmarshal(long, &e); err != nil {
			t.Fatal(err)
		}
		e.Type.Class = event.ToDeviceEventType
		if us.receive(t.Context(), l, &e); known() != 1 {
			t.Errorf("a message under a key that is none made %d senders of one", known())
		}
		k.set(func() {
			s := k.devices[bot][string(us.ID())]
			for n := range maxHad {
				s.inbox = append(s.inbox, stranger(fmt.Sprintf("%043d", n)))
			}
		})
		write("meanwhile") // with them, or after them
		write("after")
		us.stop() // and with it what the library does by itself
		if n := reflect.ValueOf(l.machine).Elem().FieldByName("recentlyUnwedged").Len(); n > 0 {
			t.Errorf("%d senders are remembered", n)
		}
		if n := known(); n != 1 {
			t.Errorf("sessions with %d devices are in memory, want alice's", n)
		}
	})
}

// only is the one device of a user.
func (k *keyserver) only(user id.UserID) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.devices[user] {
		return name
	}
	return ""
}

// sealed makes the event in which what was encrypted arrives.
func sealed(sender id.UserID, name string, content json.RawMessage) *event.Event {
	return &event.Event{
		Type: event.EventEncrypted, RoomID: room, ID: id.EventID(name), Sender: sender, Timestamp: time.Now().UnixMilli(),
		Content: event.Content{VeryRaw: content},
	}
}

func TestRoom(t *testing.T) {
	each(t, func(t *testing.T, k *keyserver, server string) {
		us, them := k.open(t, server, bot, t.TempDir()), k.open(t, server, alice, t.TempDir())
		next(t, "our birth", us.births)
		next(t, "their birth", them.births)
		say := func(text string) json.RawMessage {
			content, err := us.Encrypt(t.Context(), room, "m.room.message", object{"body": text, "m.relates_to": object{"rel_type": "m.thread"}})
			if err != nil {
				t.Fatal(err)
			}
			return content
		}
		hears := func(e *event.Event) string {
			t.Helper()
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				opened, err := them.Decrypt(t.Context(), e)
				if err == nil {
					var c struct{ Body string }
					_ = json.Unmarshal(opened.Content.VeryRaw, &c)
					return c.Body
				}
				if !errors.Is(err, ErrNoKey) || time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
		}
		unread, first := say("zero"), say("one")
		if !strings.Contains(string(first), `"rel_type":"m.thread"`) || strings.Contains(string(first), "one") {
			t.Errorf("sent as %s", first)
		}
		if got := hears(sealed(bot, "$1", first)); got != "one" {
			t.Errorf("heard %q", got)
		}
		if _, err := them.Decrypt(t.Context(), sealed(bot, "$2", first)); err == nil {
			t.Error("the same text was read as another event")
		}
		if _, err := them.Decrypt(t.Context(), sealed("@mallory:example.org", "$0", unread)); !errors.Is(err, ErrForged) {
			t.Errorf("under another sender: %v", err)
		}

		second := sealed(bot, "$3", say("two"))
		if SessionOf(second) != SessionOf(sealed(bot, "", first)) {
			t.Error("nothing happened, and there is a new session")
		}
		further := &id.Device{UserID: alice, DeviceID: "FURTHER", IdentityKey: id.IdentityKey(strings.Repeat("A", 43)), SigningKey: id.Ed25519(strings.Repeat("A", 43))}
		if err := us.store.PutDevice(t.Context(), alice, further); err != nil {
			t.Fatal(err)
		}
		if SessionOf(sealed(bot, "", say("more"))) == SessionOf(second) {
			t.Error("alice has another device, and there is no new session for it")
		}
		k.set(func() { k.members = []id.UserID{bot} })
		third := sealed(bot, "$4", say("alice is gone"))
		if _, err := them.Decrypt(t.Context(), third); !errors.Is(err, ErrNoKey) || SessionOf(third) == SessionOf(second) {
			t.Errorf("who left reads on: %v", err)
		}
		k.set(func() { k.members = []id.UserID{bot, alice} })
		if got := hears(sealed(bot, "$5", say("alice is back"))); got != "alice is back" {
			t.Errorf("heard %q", got)
		}
	})
}

// TestRefused has no device while the homeserver refuses, and one as soon as it does not.
func TestRefused(t *testing.T) {
	k := newKeyserver(false)
	k.refused["query"] = 500
	d := k.open(t, serve(t, k), bot, t.TempDir())
	if _, err := d.Encrypt(t.Context(), room, "m.room.message", object{}); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v", err)
	}
	k.set(func() { delete(k.refused, "query") })
	if b := next(t, "the birth", d.births); !b.New || b.Lost != "" {
		t.Errorf("got %+v: an attempt that failed is no loss", b)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "recovery")
	for _, tc := range []struct{ name, text, want, problem string }{
		{"no file", "", "", ""},
		{"another user", "@other:example.org EsTc\n", "", ""},
		{"no recovery key", string(bot) + " nonsense\n", "", "is no recovery key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.text != "" {
				if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			key, err := NewRecovery(file).key(bot)
			if key != tc.want || (err != nil) != (tc.problem != "") || err != nil && !strings.Contains(err.Error(), tc.problem) {
				t.Errorf("got %q, %v, want %q, %q", key, err, tc.want, tc.problem)
			}
		})
	}
	if err := os.WriteFile(file+".key", []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file + ".key"); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("got %v", err)
	}
}
