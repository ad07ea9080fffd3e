package sfu

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"callserver/sfu/forward"
	"callserver/sfu/packet"
)

// inquisitive is every callback that a room's calls may end in. It asks the room something, which hangs if the room is locked.
type inquisitive struct{ *Participant }

func (i inquisitive) WriteRTP(*forward.Outgoing) error { i.Info(); return nil }
func (i inquisitive) WriteData(bool, []byte) error     { i.Info(); return nil }
func (i inquisitive) RequestKeyFrame(int8)             { i.Info() }
func (i inquisitive) Await()                           {}

// Sessions, the tick and the packets of a room all come from goroutines of their own.
func TestManyAtOnce(t *testing.T) {
	const people, steps = 8, 300
	rooms := New(Options{AutoCreate: true})
	start := time.Unix(1_700_000_000, 0)
	stop := make(chan struct{})
	var ticking, wg sync.WaitGroup
	ticking.Go(func() {
		for now := start; ; now = now.Add(100 * time.Millisecond) {
			select {
			case <-stop:
				return
			default:
				rooms.Tick(now)
				rooms.Stats()
				rooms.List()
			}
		}
	})
	for i := range people {
		wg.Go(func() { wander(t, rooms, Identity(fmt.Sprint(i%(people-2))), start, steps) })
	}
	wg.Wait()
	close(stop)
	ticking.Wait()
	_ = rooms.Delete("room", start) // it may have ended by itself
	if s := rooms.Stats(); s.Participants+s.Tracks+s.Subscriptions+s.Rooms != 0 || s.Joins != s.Leaves {
		t.Errorf("stats after everything was closed: %+v", s)
	}
}

// wander joins, does things at random and leaves, over and over.
func wander(t *testing.T, rooms *Rooms, id Identity, now time.Time, steps int) {
	random := rand.New(rand.NewPCG(uint64(len(id)), uint64(id[0])))
	var p *Participant
	var own []SID
	var source *forward.Source
	for step := range steps {
		if p == nil || p.Closed() {
			var err error
			if p, err = rooms.Join("room", member(id), now); err != nil {
				t.Errorf("join: %v", err)
				return
			}
			p.SetDataWriter(inquisitive{p})
			p.SetState(Active, now)
			own = nil
		}
		switch random.IntN(8) {
		case 0:
			info, err := p.Publish(TrackRequest{CID: fmt.Sprint(step), Kind: Video, Source: Camera}, now)
			if err != nil {
				continue
			}
			if s, err := p.Negotiated(info.SID, Media{MID: fmt.Sprint(step), Mime: "video/VP8", RIDs: []string{"q", "h"}}, now); err == nil {
				s.SetUpstream(inquisitive{p})
				own, source = append(own, info.SID), s
			}
		case 1:
			if len(own) > 0 {
				_ = p.Mute(own[0], step%2 == 0, now)
				if step%5 == 0 {
					p.Unpublish(own[0], now)
					own = own[1:]
				}
			}
		case 2:
			_ = p.SendData([]byte("x"), step%2 == 0, nil)
		case 3:
			p.Permissions(step%3 != 0, nil, now)
		case 4:
			p.Resync(now)
		case 5:
			if step%10 == 0 {
				p.Leave(ClientInitiated, now)
			}
		case 6:
			if source != nil {
				pkt := packet.Get(packet.Capacity)
				pkt.SequenceNumber, pkt.Payload = uint16(step), append(pkt.Buffer()[:0], 0x10, 0, 0x9d, 1)
				source.Push(forward.Layer{}, pkt, now)
			}
		default:
			handle(p, now)
		}
	}
	p.Leave(ClientInitiated, now)
}

func handle(p *Participant, now time.Time) {
	for _, e := range p.Events() {
		if w, ok := e.(DownlinkWanted); ok {
			if sink, err := p.Bind(w.Track.SID, inquisitive{p}, true, now); err == nil {
				p.Settings([]SID{w.Track.SID}, TrackSettings{Quality: Low}, now)
				sink.RequestKeyFrame(now)
			}
		}
	}
}
