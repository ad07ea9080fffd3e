package mediakeys

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// What Element Call 0.26.1 sends.
const asSent = `{"keys":{"index":3,"key":"AAECAwQFBgcICQoLDA0ODw=="},"room_id":"!abc:hs",` +
	`"member":{"id":"@alice:hs:ABCDEFGH","claimed_device_id":"ABCDEFGH"},` +
	`"session":{"application":"m.call","call_id":"","scope":"m.room"},"sent_ts":1750000000123}`

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, old, new string // asSent with old replaced by new
		want           error
	}{
		{"as Element Call sends it", "", "", nil},
		{"without padding", `Dw=="`, `Dw"`, nil},
		{"32 bytes", `AAECAwQFBgcICQoLDA0ODw==`, strings.Repeat("A", 43), nil},
		{"the call id in its other form", `"call_id":""`, `"call_id":"ROOM"`, nil},
		{"without the time", `,"sent_ts":1750000000123`, ``, nil},
		{"a time that is none", `1750000000123`, `-1e300`, nil},
		{"another call", `"call_id":""`, `"call_id":"whiteboard"`, ErrOtherSession},
		{"another application", `"m.call"`, `"m.game"`, ErrOtherSession},
		{"no index", `"index":3,`, ``, ErrNoKey},
		{"an index beyond the ring", `"index":3`, `"index":256`, ErrNoKey},
		{"a negative index", `"index":3`, `"index":-1`, ErrNoKey},
		{"a key too short", `AAECAwQFBgcICQoLDA0ODw==`, `AAEC`, ErrNoKey},
		{"a key too long", `AAECAwQFBgcICQoLDA0ODw==`, strings.Repeat("A", 88), ErrNoKey},
		{"not base64", `AAECAwQFBgcICQoLDA0ODw==`, `!!!!AwQFBgcICQoLDA0ODw==`, ErrNoKey},
		{"no device", `"claimed_device_id":"ABCDEFGH"`, `"claimed_device_id":""`, ErrNoKey},
		{"a room id without end", `!abc:hs`, strings.Repeat("r", 256), ErrNoKey},
		{"the old form with several keys", `"keys":{"index":3,"key":"AAECAwQFBgcICQoLDA0ODw=="}`, `"keys":[]`, ErrNoKey},
		{"not JSON", `{`, ``, ErrNoKey},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := Parse("@alice:hs", []byte(strings.Replace(asSent, tc.old, tc.new, 1)))
			if !errors.Is(err, tc.want) || err == nil && (l.Room != "!abc:hs" || l.From != Peer{"@alice:hs", "ABCDEFGH"} || l.Index != 3) {
				t.Errorf("got %+v, %v, want %v", l, err, tc.want)
			}
		})
	}
}

func TestContent(t *testing.T) {
	l := Letter{
		Room: "!abc:hs", From: Peer{"@alice:hs", "ABCDEFGH"}, Member: "@alice:hs:ABCDEFGH", Sent: time.UnixMilli(1_750_000_000_123),
		Key: Key{Index: 3, Secret: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
	}
	if got := string(l.Content()); got != asSent {
		t.Errorf("got  %s\nwant %s", got, asSent)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(asSent)
	f.Add(`{"keys":{"index":1e0,"key":""},"session":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse("@alice:hs", []byte(text))
		if err != nil {
			return
		}
		if !json.Valid(l.Content()) {
			t.Fatalf("%q becomes %q", text, l.Content())
		}
		again, err := Parse("@alice:hs", l.Content())
		if err != nil || again.Room != l.Room || !bytes.Equal(again.Secret, l.Secret) || again.Index != l.Index {
			t.Fatalf("%q becomes %+v, then %+v, %v", text, l, again, err)
		}
	})
}
