package signalling

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"callserver/sfu"
	"callserver/sfu/framecrypto"
)

// sealer is a client that encrypts what it publishes.
type sealer struct{ sound, picture *framecrypto.Sealer }

func keyring(t testing.TB, index uint8, key []byte) *framecrypto.Keys {
	t.Helper()
	k := &framecrypto.Keys{}
	if err := k.Set(index, key); err != nil {
		t.Fatal(err)
	}
	if err := k.Use(index); err != nil {
		t.Fatal(err)
	}
	return k
}

func newSealer(t testing.TB, index uint8, key []byte) *sealer {
	k := keyring(t, index, key)
	return &sealer{framecrypto.NewSealer(k, framecrypto.Opus, 1), framecrypto.NewSealer(k, framecrypto.VP8, 2)}
}

// speak sends a frame of each kind, encrypted.
func (s *sealer) speak(w *legWorld, p *person, key bool, body string) {
	w.Helper()
	mic, cam := p.sources[sfu.Microphone], p.sources[sfu.Camera]
	sealed, err := s.sound.Seal(nil, []byte(body), mic.time, false)
	if err != nil {
		w.Fatal(err)
	}
	mic.send(sealed, 20)
	clear := cam.frame(key, body)
	if sealed, err = s.picture.Seal(nil, clear[4:], cam.time, key); err != nil {
		w.Fatal(err)
	}
	cam.send(append(clear[:4:4], sealed...), 0)
	time.Sleep(20 * time.Millisecond)
}

// opens returns the frames among packets' payloads that the keys open.
func (r *recorder) opened(keys *framecrypto.Keys, c framecrypto.Codec) (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := framecrypto.NewOpener(keys, c)
	for _, sealed := range r.list {
		if b, err := o.Open(nil, []byte(sealed), len(sealed) > 0 && sealed[0]&1 == 0); err == nil {
			list = append(list, string(b))
		}
	}
	return list
}

func hasEnd(list []string, end string) bool {
	for _, s := range list {
		if strings.HasSuffix(s, end) {
			return true
		}
	}
	return false
}

func TestLegOpensAndSeals(t *testing.T) {
	legTest(t, func(w *legWorld) {
		aliceKey, bobKey, next := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 16)
		alice := w.person("alice")
		alice.publish(sfu.Microphone, sfu.EncryptionGCM)
		alice.publish(sfu.Camera, sfu.EncryptionGCM)
		client := newSealer(t, 0, aliceKey)
		r := w.remote("bob", LegOptions{Encrypted: true})
		defer r.end()
		sound, picture := r.Client.Publish("mic", webrtc.MimeTypeOpus), r.Client.Publish("cam", webrtc.MimeTypeVP8)
		r.call(false)
		r.connected()

		// Without a key nothing comes through, in either direction, and nobody is asked for key frames that would be of no use.
		tracks := w.server.Rooms().Participant("room", "bob").Info().Tracks
		for _, track := range tracks {
			if track.Encryption != sfu.EncryptionGCM {
				t.Errorf("published in the clear: %+v", track)
			}
		}
		heard, seen := alice.record(w, tracks[0]), alice.record(w, tracks[1])
		answered := int32(0)
		for range 100 {
			asked := alice.sources[sfu.Camera].asked.Load()
			client.speak(w, alice, asked > answered, "sealed")
			answered = asked
			sound.Send(0, false, 20, []byte("howdy"))
			picture.Send(0, true, 0, []byte("folks"))
		}
		if heard.has("") || seen.has("") || r.track(hearing) != nil || r.track(seeing) != nil {
			t.Error("media without a key")
		}
		if n := alice.sources[sfu.Camera].asked.Load(); n > 3 {
			t.Errorf("%d key frames asked for without a key", n)
		}

		before := alice.sources[sfu.Camera].asked.Load()
		if err := r.SetKey("alice", 0, aliceKey); err != nil {
			t.Fatal(err)
		}
		if alice.sources[sfu.Camera].asked.Load() == before {
			t.Error("no key frame asked for with the key")
		}
		if err := r.SetOwnKey(0, bobKey); err != nil {
			t.Fatal(err)
		}
		talk := func(what, toRemote, sounds, pictures string, client *sealer, own *framecrypto.Keys) {
			t.Helper()
			w.wait(what, func() bool {
				client.speak(w, alice, true, toRemote)
				sound.Send(0, false, 20, []byte(sounds))
				picture.Send(0, true, 0, []byte(pictures))
				a, v := bodies(packets(r.track(hearing)), len(toRemote)), bodies(packets(r.track(seeing)), len(toRemote))
				return hasEnd(a, toRemote) && hasEnd(v, toRemote) &&
					hasEnd(heard.opened(own, framecrypto.Opus), sounds) && hasEnd(seen.opened(own, framecrypto.VP8), pictures)
			})
		}
		talk("media with keys", "secret", "howdy", "folks", client, keyring(t, 0, bobKey))

		// Both change their keys.
		client = newSealer(t, 1, next)
		if err := r.SetKey("alice", 1, next); err != nil {
			t.Fatal(err)
		}
		if err := r.SetOwnKey(7, next); err != nil {
			t.Fatal(err)
		}
		talk("media with other keys", "terces", "ydwoh", "sklof", client, keyring(t, 7, next))
		for _, r := range []*recorder{heard, seen} {
			if r.has("howdy") || r.has("folks") {
				t.Error("published in the clear")
			}
		}
	})
}
