package rtc

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"callserver/internal/testnet"
)

// TestFurtherOffers says what becomes of the offers of those who are in: Pion does not hear of them, and they wait for each other, but nobody who joins waits for
// them.
func TestFurtherOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := testnet.NewWorld(t)
		e, err := New(Options{Net: net.Host("10.0.0.1"), UDPPort: 7881})
		if err != nil {
			t.Fatal(err)
		}
		defer net.Stop()
		defer func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}()
		peer := func() *Peer {
			p, err := e.NewPeer(PeerOptions{Single: true, Protocol: 17})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		offer := func(p *Peer, id uint32, name string) {
			text, err := os.ReadFile(filepath.Join("testdata", name+".sdp"))
			if err == nil {
				_, err = p.Offer(id, string(text), nil)
			}
			if err != nil {
				t.Error(err)
			}
		}
		alice, bob := peer(), peer()
		offer(alice, 1, "chromium-join")
		told := alice.client.pc.RemoteDescription().SDP

		for range cap(e.yielding) { // as many others as there are cores
			e.yielding <- struct{}{}
		}
		offer(bob, 1, "chromium-join")
		done := make(chan struct{})
		go func() {
			defer close(done)
			offer(alice, 2, "chromium-publish")
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Error("a further offer was answered while as many others were as there are cores")
		default:
		}
		<-e.yielding
		<-done
		if again := alice.client.pc.RemoteDescription().SDP; again != told {
			t.Errorf("Pion was told of an offer that changes nothing for it:\n%s", again)
		}
		if n := len(alice.client.pc.GetTransceivers()); n != 0 {
			t.Errorf("Pion has %d transceivers for media that it does not move", n)
		}
	})
}

// TestNegotiationsAreSpaced says when the next one is due, in milliseconds after the last, and half a second later while the server is behind.
func TestNegotiationsAreSpaced(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	began := time.Unix(1, 0)
	for _, c := range []struct{ sections, wanted, due int }{
		{7, 5000, 5010}, {7, 20, 150}, {7, 145, 155}, {50, 20, 400}, {50, 395, 405}, {1000, 0, 600},
	} {
		var s schedule
		s.settled(began, c.sections)
		s.want(began.Add(ms(c.wanted)))
		s.want(began.Add(ms(c.wanted + 100))) // shares it
		if s.take(began.Add(ms(c.due-1)), false) || s.take(began.Add(ms(c.due+499)), true) {
			t.Errorf("%+v: too early", c)
		}
		if late := s; !s.take(began.Add(ms(c.due)), false) || !late.take(began.Add(ms(c.due+500)), true) {
			t.Errorf("%+v: too late", c)
		}
		if s.take(began.Add(time.Minute), false) {
			t.Errorf("%+v: twice", c)
		}
	}
}
