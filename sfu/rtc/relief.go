package rtc

import (
	"time"

	"github.com/pion/rtcp"
)

const (
	reliefEvery = 100 * time.Millisecond // what is said is repeated: it may get lost
	passOnAfter = 300 * time.Millisecond // the client has heard it by then, and given up what is more
	freedTimes  = 3                      // so often it is said that there is no limit any more
	unlimited   = 1_000_000_000          // bits/s
)

// relief tells a client how much its line carries (draft-alvestrand-rmcat-remb) while it sends more than that. The tick loop's only.
type relief struct {
	bitrate int64 // as said last; 0 = none
	said    time.Time
	began   time.Time // when a limit was said first; zero once our receivers were told of it
	left    int       // how often it is still to be said that there is no limit
}

// due returns the bitrate that is to be told now, if any.
func (r *relief) due(bitrate int64, limited bool, now time.Time) (say int64, ok bool) {
	switch {
	case limited && bitrate != r.bitrate:
		r.bitrate = bitrate
	case !limited && r.bitrate != 0:
		r.bitrate, r.left = 0, freedTimes
	case !limited && r.left == 0, now.Sub(r.said) < reliefEvery:
		return 0, false
	}
	r.said = now
	if limited {
		return bitrate, true
	}
	r.left--
	return unlimited, true
}

// pending reports whether there is more to be told later.
func (r *relief) pending() bool { return r.bitrate != 0 || r.left > 0 }

// relieve returns what is to be told to a client that sends more than its line carries, or did.
func (p *Peer) relieve(now time.Time) []rtcp.Packet {
	bitrate, limited, widened := p.client.inlet.Arrivals.Line(now)
	switch {
	case limited && p.relief.bitrate == 0:
		p.relief.began = now
		p.emit(LineChanged{Narrow: true})
	case limited && !p.relief.began.IsZero() && now.Sub(p.relief.began) >= passOnAfter:
		p.relief.began = time.Time{}
		for _, u := range *p.uplinks.Load() {
			if s := u.source.Load(); s != nil && s.Codec().Video() {
				s.Narrow(bitrate, now)
			}
		}
	case widened:
		p.emit(LineChanged{})
	}
	bitrate, ok := p.relief.due(bitrate, limited, now)
	if !ok {
		return nil
	}
	remb := &rtcp.ReceiverEstimatedMaximumBitrate{SenderSSRC: p.client.ssrc, Bitrate: float32(bitrate)}
	for _, u := range *p.uplinks.Load() {
		for i := range u.streams {
			if ssrc := u.streams[i].ssrc.Load(); ssrc != 0 {
				remb.SSRCs = append(remb.SSRCs, ssrc)
			}
		}
	}
	return []rtcp.Packet{remb}
}
