package signalling

import (
	"time"

	"callserver/sfu"
	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/framecrypto"
	"callserver/sfu/relay"
	"callserver/sfu/rtc"
)

// outgoing is one stream that the remote of a leg receives, on which one track is shown at a time. Guarded by Leg.mu.
type outgoing struct {
	place    int
	id       string // of its track in the descriptions
	stream   string // msid
	stage    *relay.Stage
	sink     *forward.Sink // towards the remote; nil until it is negotiated
	present  showing       // has the stage
	coming   showing       // takes it with its first frame
	shown    Shown         // as told
	everTold bool
}

// showing is a track on its way to the remote; the zero value is none.
type showing struct {
	pick pick
	feed *relay.Feed
}

// How the places are called in the room, and in the descriptions.
var (
	placeSources = [places]sfu.TrackSource{sfu.Microphone, sfu.Camera, sfu.ScreenShare}
	placeNames   = [places]string{"audio", "video", "screen"}
	placeStreams = [places]string{"user", "user", "screen"}
)

// openLocked makes room for a place, to be negotiated.
func (l *Leg) openLocked(place int, mime string) error {
	c := codec.Parse(mime)
	stream := string(l.sess.sid) + "|" + placeStreams[place]
	o := &outgoing{place: place, id: string(l.sess.sid) + "|" + placeNames[place], stream: stream}
	o.stage = relay.New(forward.NewSource(forward.SourceOptions{Codec: c, Video: c.Video()}), time.Now)
	err := l.sess.peer.AddDownlink(rtc.DownlinkOptions{
		TrackID: o.id, StreamID: stream, CNAME: string(l.sess.sid), Mime: mime, Own: place == watching,
	})
	if err == nil {
		l.outgoing[place] = o
	}
	return err
}

// shutLocked gives a place up.
func (l *Leg) shutLocked(place int) {
	o := l.outgoing[place]
	if o == nil {
		return
	}
	l.outgoing[place] = nil
	l.releaseLocked(o.present)
	l.releaseLocked(o.coming)
	l.sess.peer.RemoveDownlink(o.id)
	o.close()
	if o.everTold && o.shown.Identity != "" {
		l.tellLocked(Shown{Source: placeSources[place]})
	}
}

// boundLocked attaches a stage to the section that was negotiated for it.
func (l *Leg) boundLocked(e rtc.DownlinkBound) {
	for _, o := range l.outgoing {
		if o != nil && o.id == e.TrackID {
			if o.sink != nil {
				o.sink.Detach()
			}
			o.sink = o.stage.Source().Attach(e.Writer, forward.SinkOptions{Target: forward.MaxTemporal(0), RTX: e.RTX})
			l.sess.peer.SetSink(o.id, o.sink)
		}
	}
}

// fits reports whether the remote can get a track at a place.
func (l *Leg) fits(place int, t *sfu.TrackInfo) bool {
	o := l.outgoing[place]
	c := codec.Parse(t.Mime)
	switch {
	case o == nil && place == watching: // its place is made when it is wanted
		if seen := l.outgoing[seeing]; seen == nil || c != seen.stage.Source().Codec() {
			return false
		}
	case o == nil, o.stage.Source().Codec() != c:
		return false
	}
	return t.Encryption == sfu.EncryptionNone || t.Encryption == sfu.EncryptionGCM && relay.Sealable(c)
}

// castLocked chooses anew who is heard and seen, and does what follows.
func (l *Leg) castLocked(now time.Time) {
	picks := l.director.choose(l.others, l.fits, now)
	if l.options.Screens && l.described {
		l.makeRoomLocked(picks[watching])
	}
	for place, p := range picks {
		if o := l.outgoing[place]; o != nil {
			l.showLocked(o, p)
		}
	}
	l.subscribeLocked(now)
	for place, p := range picks {
		if o := l.outgoing[place]; o != nil {
			l.bringLocked(o, p, now)
			l.settleLocked(o)
		}
	}
}

// makeRoomLocked offers the remote a second stream while there is a screen for it.
func (l *Leg) makeRoomLocked(screen pick) {
	switch o := l.outgoing[watching]; {
	case o == nil && screen.track.SID != "":
		if err := l.openLocked(watching, screen.track.Mime); err != nil {
			l.sess.log.Warn("screen not shown to the remote of a leg", "err", err)
			return
		}
		l.tellLocked(OfferWanted{})
	case o != nil && screen.track.SID == "":
		l.shutLocked(watching)
		l.tellLocked(OfferWanted{})
	}
}

// showLocked begins to bring a track to a place, unless it is on its way or there.
func (l *Leg) showLocked(o *outgoing, p pick) {
	switch {
	case p.track.SID == "":
		l.releaseLocked(o.present)
		l.releaseLocked(o.coming)
		o.present, o.coming = showing{}, showing{}
		o.stage.Cut(nil)
	case p.is(o.present.pick):
		o.present.pick = p
		l.releaseLocked(o.coming)
		o.coming = showing{}
		o.stage.Cut(o.present.feed)
	case p.is(o.coming.pick):
		o.coming.pick = p
	default:
		l.releaseLocked(o.coming)
		o.coming = showing{pick: p}
	}
}

// releaseLocked takes a track off its place.
func (l *Leg) releaseLocked(s showing) {
	if s.feed != nil {
		l.sess.part.Unbind(s.pick.track.SID, time.Now())
		s.feed.Close()
	}
}

// subscribeLocked asks for the tracks that are wanted: all voices, since who speaks is told of those only, and what is shown or about to be.
func (l *Leg) subscribeLocked(now time.Time) {
	want := map[sfu.SID]bool{}
	for _, other := range l.others {
		for i := range other.Tracks {
			if t := &other.Tracks[i]; t.Source == sfu.Microphone && l.fits(hearing, t) {
				want[t.SID] = true
			}
		}
	}
	for _, o := range l.outgoing {
		if o != nil {
			want[o.present.pick.track.SID], want[o.coming.pick.track.SID] = true, true
		}
	}
	delete(want, "")
	for sid := range want {
		if !l.asked[sid] {
			l.asked[sid] = true
			l.sess.part.Subscribe([]sfu.SID{sid}, true, now)
		}
	}
	for sid := range l.asked {
		if !want[sid] {
			delete(l.asked, sid)
			l.sess.part.Subscribe([]sfu.SID{sid}, false, now)
		}
	}
}

// bringLocked attaches the track that is coming, as soon as the room lets us have it.
func (l *Leg) bringLocked(o *outgoing, p pick, now time.Time) {
	sid := o.coming.pick.track.SID
	if _, ready := l.wanted[sid]; !ready || o.coming.feed != nil {
		return
	}
	feed := o.stage.Pass()
	if p.track.Encryption != sfu.EncryptionNone {
		keys, err := l.keysOfLocked(p.identity)
		if err != nil {
			l.sess.log.Warn("encrypted media not shown to the remote of a leg", "track", sid, "err", err)
			keys = &framecrypto.Keys{}
		}
		feed = o.stage.Open(keys)
	}
	o.stage.Cut(feed) // before its first packet, which it takes over with
	sink, err := l.sess.part.Bind(sid, feed, true, now)
	if err != nil {
		o.stage.Cut(o.present.feed)
		feed.Close()
		return // DownlinkDropped is on its way
	}
	feed.From(sink)
	o.coming.feed = feed
}

// settleLocked notes who has the stage by now, and tells.
func (l *Leg) settleLocked(o *outgoing) {
	if o.coming.feed != nil && o.stage.Shows(o.coming.feed) {
		l.releaseLocked(o.present)
		o.present, o.coming = o.coming, showing{}
		l.subscribeLocked(time.Now())
	}
	p := o.present.pick
	now := Shown{Source: placeSources[o.place], Identity: p.identity, Screen: p.track.Source == sfu.ScreenShare, Muted: p.track.Muted}
	if !o.everTold || now != o.shown {
		o.shown, o.everTold = now, true
		l.tellLocked(now)
	}
}

// lostLocked follows when the room takes a track away.
func (l *Leg) lostLocked(sid sfu.SID) {
	delete(l.wanted, sid)
	for _, o := range l.outgoing {
		if o == nil {
			continue
		}
		for _, s := range []*showing{&o.present, &o.coming} {
			if s.feed != nil && s.pick.track.SID == sid {
				s.feed.Close()
				if o.stage.Shows(s.feed) {
					o.stage.Cut(nil)
				}
				*s = showing{}
			}
		}
	}
}

// keyed says that there are new keys of somebody's.
func (o *outgoing) keyed(identity sfu.Identity) {
	if o == nil {
		return
	}
	for _, s := range []showing{o.present, o.coming} {
		if s.feed != nil && s.pick.identity == identity {
			s.feed.Keyed()
		}
	}
}

// tick does what is due on the way to the remote.
func (o *outgoing) tick(now time.Time, report bool) {
	o.stage.Tick(now)
	if report {
		o.stage.Report(now)
	}
}

func (o *outgoing) close() {
	if o == nil {
		return
	}
	o.stage.Cut(nil)
	o.stage.Source().Close()
}
