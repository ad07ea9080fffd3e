package rtc

import (
	"encoding/binary"
	"log/slog"
	"slices"
	"testing"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/egress"
	"callserver/sfu/forward"
	"callserver/sfu/ingress"
	"callserver/sfu/packet"
	keys "callserver/sfu/srtp"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// TestWheel: each peer has its routine once in a round, with as many others as with any other tick, and whoever is woken is attended to once, with the next tick.
func TestWheel(t *testing.T) {
	var w wheel
	var peers []*Peer
	for range 4 * shareTicks {
		p := &Peer{}
		peers = append(peers, p)
		if !w.add(p) {
			t.Fatal("not added")
		}
	}
	for range 2 { // those of one share leave, others come in their place
		_, share := w.turn()
		for _, p := range share {
			w.remove(p)
			w.remove(p)
			i := slices.Index(peers, p)
			peers[i] = &Peer{}
			w.add(peers[i])
		}
	}
	if n := w.len(); n != len(peers) {
		t.Errorf("%d peers, want %d", n, len(peers))
	}
	seen := map[*Peer]int{}
	for range 3 * shareTicks {
		awake, share := w.turn()
		if len(awake) > 0 || len(share) != 4 {
			t.Errorf("%d are awake, %d have their routine, want 0 and 4", len(awake), len(share))
		}
		for _, p := range share {
			seen[p]++
		}
	}
	for i, p := range peers {
		if seen[p] != 3 {
			t.Errorf("peer %d had its routine %d times in three rounds", i, seen[p])
		}
	}
	for range 3 {
		w.wake(peers[1])
		w.wake(peers[0])
	}
	awake, _ := w.turn()
	if !slices.Equal(awake, []*Peer{peers[1], peers[0]}) {
		t.Errorf("%d are awake, want the two that were woken", len(awake))
	}
	peers[0].awake.Store(false) // attended to
	w.wake(peers[0])
	w.wake(peers[1])
	if awake, _ = w.turn(); !slices.Equal(awake, peers[:1]) {
		t.Errorf("%d are awake, want the one that was woken again", len(awake))
	}
	if open := w.close(); len(open) != len(peers) || w.add(&Peer{}) {
		t.Errorf("closed: %d peers, and another can be added", len(open))
	}
}

// drowsy is a peer without a client, in a time of its own.
type drowsy struct {
	*Peer
	t   *testing.T
	up  *uplink
	seq uint16
	now time.Time
}

func newDrowsy(t *testing.T, c codec.Codec) *drowsy {
	e := &Engine{log: slog.New(slog.DiscardHandler)}
	e.egress = egress.NewPool(1, func(value any) { t.Error(value) })
	t.Cleanup(e.egress.Close)
	p := &Peer{engine: e, options: PeerOptions{Plain: true, Single: true}, log: e.log, events: newEvents(nil), worker: e.egress.Assign()}
	p.client = &connection{peer: p, ssrc: 1, leg: p.worker.NewLeg(), inlet: ingress.New(ingress.Options{Line: p.wake})}
	p.client.congestion.connection = p.client
	p.client.state.Store(uint32(Connected))
	p.downlinks.Store(new([]*downlink))
	d := &drowsy{Peer: p, t: t, up: newUplink(p, "0"), now: time.Now()}
	p.uplinks.Store(&[]*uplink{d.up})
	d.up.feed(forward.NewSource(forward.SourceOptions{Codec: c, Video: c.Video()}))
	e.wheel.add(p)
	d.push("\x10\x00") // a key frame, where it is video
	return d
}

// push has the next packet come.
func (d *drowsy) push(payload string) {
	d.t.Helper()
	b := binary.BigEndian.AppendUint16([]byte{0x80, 111}, d.seq)
	b = append(binary.BigEndian.AppendUint32(b, uint32(d.seq)*960), 0, 0, 0, 9)
	d.seq++
	p := packet.Get(packet.Capacity)
	if err := p.Parse(copy(p.Buffer(), append(b, payload...)), packet.Extensions{}); err != nil {
		d.t.Fatal(err)
	}
	d.up.Media(0, p, d.now)
}

// tick is one of the engine's, and reports whether the peer was attended to.
func (d *drowsy) tick() bool {
	d.now = d.now.Add(tickInterval)
	awake, _ := d.engine.wheel.turn()
	for _, p := range awake {
		p.attend(d.now, false)
	}
	return len(awake) > 0
}

// TestWoken: a peer is attended to with each tick while something is outstanding, and no longer.
func TestWoken(t *testing.T) {
	for _, c := range []struct {
		name   string
		codec  codec.Codec
		wake   func(d *drowsy)
		settle func(d *drowsy) // nil = one look does
	}{
		{"a packet is lost", codec.Opus, func(d *drowsy) {
			d.seq++
			d.push("x")
		}, func(d *drowsy) {
			d.seq -= 2
			d.push("x")
		}},
		{"a key frame is wanted, and may wait", codec.VP8, func(d *drowsy) {
			d.up.source.Load().Attach(nowhere{}, forward.SinkOptions{Patience: time.Second})
		}, func(d *drowsy) { d.push("\x10\x00") }},
		{"what is fed misses something", codec.Opus, func(d *drowsy) {
			s := d.up.source.Load()
			d.up.feed(nil)
			s.Attach(nowhere{}, forward.SinkOptions{})
			d.up.feed(s)
			d.seq++
			d.push("x")
			d.tick()
			d.up.feed(nil)
			d.tick()
			d.tick()
			d.up.feed(s)
		}, func(d *drowsy) {
			d.seq -= 2
			d.push("x")
		}},
		{"a negotiation", codec.Opus, func(d *drowsy) { d.Negotiate(false) }, nil},
		{"a negotiation that waits for the last one", codec.Opus, func(d *drowsy) {
			d.schedule.rest = d.now.Add(time.Hour)
			d.settled()
			d.schedule.rest = d.now.Add(time.Hour)
			if err := d.AddDownlink(DownlinkOptions{TrackID: "TR_V", Mime: "video/VP8"}); err != nil {
				d.t.Error(err)
			}
		}, func(d *drowsy) { d.now = d.now.Add(2 * time.Hour) }},
		{"sections that were asked for, and may have to be again", codec.Opus, func(d *drowsy) {
			d.options.Plain, d.round.answered = false, 1
			d.downlinks.Store(&[]*downlink{newDownlink(d.Peer, d.client.leg, DownlinkOptions{TrackID: "TR_V", Mime: "video/VP8"})})
			d.ask(d.now)
		}, func(d *drowsy) {
			d.downlinks.Store(new([]*downlink))
			d.now = d.now.Add(askAgain)
		}},
		{"a limit that is told", codec.Opus, func(d *drowsy) {
			d.relief.due(300_000, true, d.now)
			d.wake()
		}, func(d *drowsy) {
			d.now = d.now.Add(time.Second)
			d.tick()
			d.now = d.now.Add(time.Second)
			d.tick()
			d.now = d.now.Add(time.Second)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDrowsy(t, c.codec)
			d.up.source.Load().Attach(nowhere{}, forward.SinkOptions{})
			d.push("\x10\x00")
			d.tick()
			for range 5 {
				d.push("\x10\x00")
				if d.tick() {
					t.Fatal("attended to for nothing")
				}
			}
			c.wake(d)
			for n := range 5 {
				if attended := d.tick(); !attended && (n == 0 || c.settle != nil) {
					t.Errorf("not attended to with tick %d", n)
				}
			}
			if c.settle != nil {
				c.settle(d)
				d.tick()
			}
			for range 5 {
				if d.tick() {
					t.Error("attended to when all is done")
				}
			}
		})
	}
}

// TestRoutine: arrivals are told ten times a second, the rest once, in one packet for both directions, and nothing else is sent.
func TestRoutine(t *testing.T) {
	d := newDrowsy(t, codec.Opus)
	material := make([]byte, keys.GCM128.Material())
	sealer, opener, err := keys.Server(keys.GCM128, material)
	if err != nil {
		t.Fatal(err)
	}
	client, err := srtp.CreateContext(material[:16], material[32:44], srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []byte // packet types sent, in the worker's turn
	d.client.leg.SetSealer(sealer)
	d.client.leg.SetPath(&egress.Path{Write: func(b []byte) { kinds = append(kinds, b[1]) }})
	d.client.inlet.SetOpener(opener)
	d.client.inlet.SetTerms([]*ingress.Terms{{MID: "0", To: d.up, Payloads: [2]uint8{111, 111}, SSRC: 9, Extensions: packet.Extensions{TransportCC: 5}}})
	source, down := d.up.source.Load(), newDownlink(d.Peer, d.client.leg, DownlinkOptions{TrackID: "TR_A", Mime: "audio/opus"})
	source.SenderReport(forward.Layer{}, 1<<32, 0, d.now)
	down.sink.Store(source.Attach(nowhere{}, forward.SinkOptions{}))
	down.numbers.Store(wire{payload: 111}.pack())
	d.downlinks.Store(&[]*downlink{down})
	const ticks = 100 // two seconds
	for n := range uint16(ticks) {
		header := rtp.Header{Version: 2, PayloadType: 111, SequenceNumber: d.seq + n, Timestamp: uint32(d.seq+n) * 960, SSRC: 9}
		if err := header.SetExtension(5, binary.BigEndian.AppendUint16(nil, n)); err != nil {
			t.Fatal(err)
		}
		b, err := (&rtp.Packet{Header: header, Payload: []byte("x")}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if b, err = client.EncryptRTP(nil, b, nil); err != nil {
			t.Fatal(err)
		}
		d.client.inlet.Receive(b, d.now)
		_, share := d.engine.wheel.turn()
		for _, p := range share {
			p.routine(d.now)
		}
		d.now = d.now.Add(tickInterval)
	}
	for range 2 { // the first may be done before what came with it is sent
		done := make(chan struct{})
		d.client.leg.Do(func() { close(done) })
		<-done
	}
	const report, feedback = 201, 205
	count := map[byte]int{}
	d.client.leg.Turn(func() {
		for _, k := range kinds {
			count[k]++
		}
	})
	if len(count) != 2 || count[feedback] != ticks/shareTicks || count[report] != 2 {
		t.Errorf("%v sent by type, want %d of %d and 2 of %d", count, ticks/shareTicks, feedback, report)
	}
}
