package rtc_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"callserver/internal/testnet"
	"callserver/sfu/rtc"
)

// nextOffer waits for the next offer of p.
func (w *world) nextOffer(p *rtc.Peer) (offer rtc.OfferReady) {
	w.t.Helper()
	w.until("offer", func() bool {
		for _, e := range p.Events() {
			if o, ok := e.(rtc.OfferReady); ok && offer.ID == 0 {
				offer = o
			}
		}
		return offer.ID != 0
	})
	return offer
}

// TestOffers follows a dual-mode client's subscriber connection: one offer at a time, told again to a client that lost
// it, with new credentials after that.
func TestOffers(t *testing.T) {
	bubble(t, func(w *world) {
		p, err := w.engine.NewPeer(rtc.PeerOptions{Protocol: 17, Subscribes: true})
		if err != nil {
			t.Fatal(err)
		}
		client := testnet.NewClient(t, testnet.ClientOptions{Net: w.net.Host("10.0.1.1")})
		defer client.Close()
		first := w.nextOffer(p)
		if !strings.Contains(first.SDP, "m=application") || strings.Contains(first.SDP, "m=audio") {
			t.Errorf("the first offer is not for data alone:\n%s", first.SDP)
		}
		err = p.AddDownlink(rtc.DownlinkOptions{TrackID: "TR_A", StreamID: "PA|TR_A", CNAME: "PA", Mime: "audio/opus", Stereo: true})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // virtual
		for _, e := range p.Events() {
			if o, ok := e.(rtc.OfferReady); ok {
				t.Errorf("offer %d while %d is outstanding", o.ID, first.ID)
			}
		}
		p.Negotiate(true)
		if again := w.nextOffer(p); again.ID != first.ID || again.SDP != first.SDP {
			t.Errorf("got offer %d, want %d again", again.ID, first.ID)
		}
		if err := p.Answer(first.ID, client.Answer(first.SDP)); err != nil {
			t.Fatal(err)
		}
		second := w.nextOffer(p)
		if second.ID <= first.ID || ufrag(second.SDP) == ufrag(first.SDP) {
			t.Errorf("offer %d after %d does not restart ICE", second.ID, first.ID)
		}
		for _, want := range []string{
			"a=setup:actpass", "a=msid:PA|TR_A TR_A", " cname:PA\r\n", "sprop-stereo=1", "a=sendonly", "a=extmap-allow-mixed",
			"a=rtcp-fb:111 nack\r\n",
		} {
			if !strings.Contains(second.SDP, want) {
				t.Errorf("the offer lacks %q:\n%s", want, second.SDP)
			}
		}
		if len(second.Tracks) != 1 {
			t.Errorf("tracks %v", second.Tracks)
		}
		if err := p.Answer(first.ID, "v=0"); !errors.Is(err, rtc.ErrStale) {
			t.Errorf("got %v for an old id", err)
		}
		answer := client.Answer(second.SDP)
		if err := p.Answer(0, strings.ReplaceAll(answer, "a=setup:active", "a=setup:passive")); !errors.Is(err, rtc.ErrBadDescription) {
			t.Errorf("got %v for a client that insists on being the DTLS server", err)
		}
		if err := p.Answer(0, answer); err != nil { // 0: clients that do not number
			t.Error(err)
		}
		p.Close()
		time.Sleep(time.Second) // virtual: both ends closing at one instant would stand still
	})
}

// TestUnansweredOffer fails a connected client that leaves an offer unanswered.
func TestUnansweredOffer(t *testing.T) {
	bubble(t, func(w *world) {
		m := w.join(false, 17)
		m.negotiate(false)
		w.until("connection", m.connected)
		close(m.stop)
		m.loop.Wait()
		if err := m.peer.AddDownlink(rtc.DownlinkOptions{TrackID: "TR_A", StreamID: "PA|TR_A", Mime: "audio/opus"}); err != nil {
			t.Fatal(err)
		}
		w.nextOffer(m.peer)
		time.Sleep(20 * time.Second) // virtual
		failed := false
		for _, e := range m.peer.Events() {
			f, ok := e.(rtc.Failed)
			failed = failed || ok && errors.Is(f.Err, rtc.ErrNoAnswer)
		}
		if !failed {
			t.Error("nothing was said")
		}
		m.stop = make(chan struct{})
		m.leave()
	})
}
