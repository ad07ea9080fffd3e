package signalling

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"callserver/internal/testnet"
	"callserver/sfu"
	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/packet"
	"callserver/sfu/rtc"
	"callserver/signalling/token"
)

// legWorld is a server with one room, in which legs meet participants whose media the test makes itself. Everything happens in virtual time.
type legWorld struct {
	*testing.T
	net    *testnet.World
	server *Server
	hosts  int
}

func legTest(t *testing.T, f func(w *legWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := &legWorld{T: t, net: testnet.NewWorld(t)}
		engine, err := rtc.New(rtc.Options{Net: w.net.Host("10.0.0.1"), UDPPort: 7881, TCPPort: -1})
		if err != nil {
			t.Fatal(err)
		}
		w.server = New(Options{Rooms: sfu.New(sfu.Options{}), Engine: engine})
		w.server.Rooms().Create("room", sfu.RoomOptions{}, time.Now())
		ctx, stop := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		loops.Go(func() { _ = w.server.Run(ctx) })
		defer func() {
			stop()
			loops.Wait()
			if err := engine.Close(); err != nil {
				t.Error(err)
			}
			w.net.Stop()
		}()
		f(w)
	})
}

// person is a participant of the room that is no leg.
type person struct {
	*sfu.Participant
	w       *legWorld
	sources map[sfu.TrackSource]*published
}

type published struct {
	source   *forward.Source
	sid      sfu.SID
	mime     string
	sequence uint16
	time     uint32
	picture  uint16
	asked    atomic.Int32 // key frames
}

func (t *published) RequestKeyFrame(int8) { t.asked.Add(1) }
func (t *published) Await()               {}

func (w *legWorld) person(name string, tracks ...sfu.TrackSource) *person {
	w.Helper()
	m := member(token.Join("room", name), PeerOptions{AutoSubscribe: true})
	part, err := w.server.Rooms().Join("room", m, time.Now())
	if err != nil {
		w.Fatal(err)
	}
	p := &person{Participant: part, w: w, sources: map[sfu.TrackSource]*published{}}
	part.SetState(sfu.Active, time.Now())
	for _, source := range tracks {
		p.publish(source, sfu.EncryptionNone)
	}
	return p
}

func (p *person) publish(source sfu.TrackSource, encryption int32) *published {
	p.w.Helper()
	kind, mime := sfu.Audio, "audio/opus"
	if source == sfu.Camera || source == sfu.ScreenShare {
		kind, mime = sfu.Video, "video/VP8"
	}
	info, err := p.Publish(sfu.TrackRequest{CID: fmt.Sprint(source), Kind: kind, Source: source, Encryption: encryption}, time.Now())
	if err != nil {
		p.w.Fatal(err)
	}
	s, err := p.Negotiated(info.SID, sfu.Media{MID: fmt.Sprint(source), Mime: mime}, time.Now())
	if err != nil {
		p.w.Fatal(err)
	}
	t := &published{source: s, sid: info.SID, mime: mime, sequence: 100, time: 5000, picture: 10}
	s.SetUpstream(t)
	p.sources[source] = t
	return t
}

// frame makes the payload of a small VP8 frame.
func (t *published) frame(key bool, body string) []byte {
	t.picture++
	b := []byte{0x90, 0x80, 0x80 | byte(t.picture>>8), byte(t.picture), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if key {
		b[4] = 0
	}
	return append(b, body...)
}

// send pushes one packet that is a frame.
func (t *published) send(payload []byte, level uint8) {
	p := packet.Get(packet.Capacity)
	n := copy(p.Buffer(), payload)
	p.SequenceNumber, p.Timestamp, p.SSRC, p.Marker, p.Payload = t.sequence, t.time, 7, true, p.Buffer()[:n:n]
	if codec.Parse(t.mime).Video() {
		t.time += 3000
	} else {
		t.time += 960
		p.AudioLevel, p.HasAudioLevel, p.Voice = level, true, level < 100
	}
	t.sequence++
	t.source.Push(forward.Layer{}, p, time.Now())
}

// remote is the other end of a leg.
type remote struct {
	*testnet.Client
	*Leg
	w *legWorld

	mu     sync.Mutex
	tracks map[string]*testnet.Received // by msid track
	events []Event
	loop   sync.WaitGroup
	stop   chan struct{}
}

func (w *legWorld) remote(name string, o LegOptions) *remote {
	w.Helper()
	w.hosts++
	l, err := w.server.JoinLeg(w.Context(), token.Join("room", name), o)
	if err != nil {
		w.Fatal(err)
	}
	r := &remote{Leg: l, w: w, tracks: map[string]*testnet.Received{}, stop: make(chan struct{})}
	r.Client = testnet.NewClient(w, testnet.ClientOptions{
		Plain: true, Net: w.net.Host(fmt.Sprintf("10.0.1.%d", w.hosts)),
		Track: func(t *testnet.Received) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.tracks[t.Track.ID()] = t
		},
		Candidate: func(_ bool, init string) { l.Candidate(init) },
	})
	r.loop.Go(func() {
		for {
			select {
			case <-l.Ready():
				r.mu.Lock()
				r.events = append(r.events, l.Events()...)
				r.mu.Unlock()
			case <-r.stop:
				return
			}
		}
	})
	return r
}

func (r *remote) end() {
	close(r.stop)
	r.loop.Wait()
	r.Client.Close()
	r.Leg.Leave(sfu.ClientInitiated)
}

// call offers, as the one who calls.
func (r *remote) call(restart bool) LegDescription {
	r.w.Helper()
	d, err := r.Leg.Answer(r.w.Context(), r.Client.Offer(restart))
	if err != nil {
		r.w.Fatal(err)
	}
	r.Client.Accept(d.SDP)
	return d
}

// track is what the remote receives at a place.
func (r *remote) track(place int) *testnet.Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tracks[string(r.SID())+"|"+placeNames[place]]
}

// last returns the latest event of a type.
func last[E any](r *remote, fits func(E) bool) (found E, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e, is := e.(E); is && fits(e) {
			found, ok = e, true
		}
	}
	return found, ok
}

// wait waits in virtual time.
func (w *legWorld) wait(what string, ok func() bool) {
	w.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
	w.Fatalf("no %s", what)
}

// connected waits until media can flow.
func (r *remote) connected() {
	r.w.Helper()
	r.w.wait("connection", func() bool {
		_, ok := last(r, func(Connected) bool { return true })
		return ok && r.Client.Publisher.ConnectionState() == webrtc.PeerConnectionStateConnected
	})
}

// packets takes what has arrived.
func packets(t *testnet.Received) (list []*rtp.Packet) {
	for t != nil {
		select {
		case p := <-t.Packets:
			list = append(list, p)
		default:
			return list
		}
	}
	return nil
}

// bodies returns the payloads' ends.
func bodies(list []*rtp.Packet, size int) (out []string) {
	for _, p := range list {
		out = append(out, string(p.Payload[max(0, len(p.Payload)-size):]))
	}
	return out
}

func TestLegCalls(t *testing.T) {
	legTest(t, func(w *legWorld) {
		alice := w.person("alice", sfu.Microphone, sfu.Camera)
		r := w.remote("bob", LegOptions{})
		defer r.end()
		sound, picture := r.Client.Publish("mic", webrtc.MimeTypeOpus), r.Client.Publish("cam", webrtc.MimeTypeVP8)
		d := r.call(false)
		if len(d.Streams) != 1 {
			t.Errorf("streams %v", d.Streams)
		}
		r.connected()

		// To the remote.
		w.wait("sound and picture", func() bool {
			alice.sources[sfu.Microphone].send([]byte("hello"), 20)
			alice.sources[sfu.Camera].send(alice.sources[sfu.Camera].frame(true, "world"), 0)
			time.Sleep(20 * time.Millisecond)
			return r.track(hearing) != nil && r.track(seeing) != nil
		})
		w.wait("packets", func() bool {
			alice.sources[sfu.Microphone].send([]byte("hello"), 20)
			alice.sources[sfu.Camera].send(alice.sources[sfu.Camera].frame(true, "world"), 0)
			time.Sleep(20 * time.Millisecond)
			a, v := bodies(packets(r.track(hearing)), 5), bodies(packets(r.track(seeing)), 5)
			return len(a) > 0 && a[0] == "hello" && len(v) > 0 && v[0] == "world"
		})

		// From the remote.
		info := w.server.Rooms().Participant("room", "bob")
		w.wait("tracks", func() bool { return len(info.Info().Tracks) == 2 })
		for _, track := range info.Info().Tracks {
			if want := map[sfu.Kind]sfu.TrackSource{sfu.Audio: sfu.Microphone, sfu.Video: sfu.Camera}[track.Kind]; track.Source != want || track.Muted {
				t.Errorf("published %+v", track)
			}
		}
		heard, seen := alice.record(w, info.Info().Tracks[0]), alice.record(w, info.Info().Tracks[1])
		w.wait("media of the remote", func() bool {
			sound.Send(0, false, 20, []byte("howdy"))
			picture.Send(0, true, 0, []byte("folks"))
			time.Sleep(20 * time.Millisecond)
			return heard.has("howdy") && seen.has("folks")
		})
		if e, ok := last(r, func(e Shown) bool { return e.Source == sfu.Camera }); !ok || e.Identity != "alice" || e.Muted {
			t.Errorf("shown %+v", e)
		}
	})
}

// recorder is a Writer that keeps the payloads.
type recorder struct {
	mu   sync.Mutex
	list []string
}

func (r *recorder) WriteRTP(o *forward.Outgoing) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, string(o.Payload))
	return nil
}

func (r *recorder) has(end string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.list {
		if len(s) >= len(end) && s[len(s)-len(end):] == end {
			return true
		}
	}
	return false
}

// record receives a track as the participant does.
func (p *person) record(w *legWorld, t sfu.TrackInfo) *recorder {
	w.Helper()
	r := &recorder{}
	w.wait("subscription", func() bool {
		_, err := p.Bind(t.SID, r, true, time.Now())
		return err == nil
	})
	return r
}
