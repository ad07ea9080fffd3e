package signalling

import (
	"math/rand/v2"
	"time"

	"callserver/sfu"
	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/relay"
	"callserver/sfu/rtc"
)

// incoming is one section on which the remote of a leg sends, and the track that it is published as. Guarded by Leg.mu.
//
// What is encrypted end to end takes a way through this server's hands: the section feeds a Source of the leg's own, whose one Sink seals the
// frames and feeds the track's.
type incoming struct {
	mid, mime, stream string
	cid               string
	source            sfu.TrackSource
	track             sfu.SID
	muted             bool // by the remote's word
	idle              bool // the section is there, but nothing is sent on it

	feeds *forward.Source // what the section's packets go into
	stage *relay.Stage    // nil: not encrypted
	feed  *relay.Feed
}

// receiveLocked brings what is published in line with the sections that the remote sends on. Gone are the mids that it rejected.
func (l *Leg) receiveLocked(sections []rtc.Section, present map[string]bool, now time.Time) {
	for mid, in := range l.incoming {
		if !present[mid] {
			l.unpublishLocked(in, now)
		}
	}
	for _, s := range sections {
		in := l.incoming[s.MID]
		if in != nil && s.Active && in.mime != s.Mime { // a codec is for the life of a track
			l.unpublishLocked(in, now)
			in = nil
		}
		switch {
		case in == nil && s.Active:
			l.publishLocked(s, now)
		case in != nil:
			in.idle = !s.Active
			if s.Active {
				in.stream, in.cid = s.StreamID, s.CID
				l.flowLocked(in)
			}
		}
	}
	l.muteLocked(now)
}

func (l *Leg) unpublishLocked(in *incoming, now time.Time) {
	delete(l.incoming, in.mid)
	l.sess.part.Unpublish(in.track, now)
	in.close()
}

// publishLocked publishes a section.
func (l *Leg) publishLocked(s rtc.Section, now time.Time) {
	in := &incoming{mid: s.MID, mime: s.Mime, stream: s.StreamID, cid: s.CID, source: l.sourceLocked(s)}
	c := codec.Parse(s.Mime)
	req := sfu.TrackRequest{
		CID: "leg|" + s.MID + "|" + s.CID, Source: in.source, Muted: l.mutedLocked(in), DisableRED: true,
		Codecs: []sfu.CodecRequest{{Codec: s.Mime[len("audio/"):], CID: s.CID}}, // "video/" is as long
	}
	if s.Video {
		req.Kind = sfu.Video
	}
	if l.options.Encrypted {
		req.Encryption = sfu.EncryptionGCM
		if !relay.Sealable(c) {
			l.sess.log.Warn("media of a leg not published: frames of its codec cannot be encrypted", "mid", s.MID, "codec", s.Mime)
			return
		}
	}
	info, err := l.sess.part.Publish(req, now)
	var source *forward.Source
	if err == nil {
		source, err = l.sess.part.Negotiated(info.SID, sfu.Media{MID: s.MID, Mime: s.Mime, RIDs: s.RIDs, SDPCID: s.CID}, now)
	}
	if err != nil {
		l.sess.log.Warn("media of a leg not published", "mid", s.MID, "source", in.source, "err", err)
		return
	}
	in.track, in.feeds = info.SID, source
	if l.options.Encrypted {
		in.seal(source, l)
	}
	l.incoming[s.MID] = in
	l.flowLocked(in)
}

// seal puts the way between that seals frames.
func (in *incoming) seal(source *forward.Source, l *Leg) {
	c := source.Codec()
	in.feeds = forward.NewSource(forward.SourceOptions{Codec: c, Video: c.Video()})
	in.stage = relay.New(source, time.Now)
	in.feed = in.stage.Seal(&l.own, rand.Uint32())
	in.stage.Cut(in.feed)
	in.feed.From(in.feeds.Attach(in.feed, forward.SinkOptions{Target: forward.MaxTemporal(0)}))
}

// flowLocked lets the section's packets in.
func (l *Leg) flowLocked(in *incoming) {
	if err := l.sess.peer.Uplink(in.mid, in.feeds); err != nil {
		l.sess.log.Warn("media of a leg not received", "mid", in.mid, "err", err)
	}
}

// sourceLocked says what a section carries: what the remote says of its stream, or else the first of its kind is the user's and
// the next is a screen's.
func (l *Leg) sourceLocked(s rtc.Section) sfu.TrackSource {
	user, screen := sfu.Microphone, sfu.ScreenShareAudio
	if s.Video {
		user, screen = sfu.Camera, sfu.ScreenShare
	}
	stream, told := l.streams[s.StreamID]
	if stream.Screen {
		return screen
	}
	for _, in := range l.incoming {
		if !told && in.source == user {
			return screen
		}
	}
	return user
}

// mutedLocked reports whether the remote has nothing to be heard or seen on a section.
func (l *Leg) mutedLocked(in *incoming) bool {
	stream := l.streams[in.stream]
	said := stream.AudioMuted
	if codec.Parse(in.mime).Video() {
		said = stream.VideoMuted
	}
	return in.idle || in.muted || said
}

// muteLocked tells the room what is muted.
func (l *Leg) muteLocked(now time.Time) {
	told := map[sfu.SID]bool{}
	for _, t := range l.sess.part.Info().Tracks {
		told[t.SID] = t.Muted
	}
	for _, in := range l.incoming {
		if muted := l.mutedLocked(in); muted != told[in.track] {
			_ = l.sess.part.Mute(in.track, muted, now) // a track that has gone needs none
		}
	}
}

// Streams says what the remote says of its streams, by id; call it before the description that they are in. Streams that nothing
// is said of are the user's, and not muted.
func (l *Leg) Streams(remote map[string]LegStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.streams)
	for id, s := range remote {
		l.streams[id] = s
	}
	l.muteLocked(time.Now())
}

// Mute mutes what the remote publishes, for everybody in the room, or unmutes it.
func (l *Leg) Mute(source sfu.TrackSource, muted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.incoming {
		if in.source == source {
			in.muted = muted
		}
	}
	l.muteLocked(time.Now())
}

// keyed says that there is a key to seal with.
func (in *incoming) keyed() {
	if in.feed != nil {
		in.feed.Keyed()
	}
}

// tick does what is due on the way to the track.
func (in *incoming) tick(now time.Time, report bool) {
	if in.stage == nil {
		return
	}
	in.stage.Tick(now)
	if report {
		in.stage.Report(now)
	}
}

func (in *incoming) close() {
	if in.stage != nil {
		in.stage.Cut(nil)
		in.feeds.Close()
		in.feed.Close()
	}
}
