package signalling

import (
	"time"

	"callserver/sfu"
	"callserver/sfu/rtc"
)

// Events returns what happened since the last call, oldest first, after doing what the session itself has to do about
// it: connecting the room's tracks with the peer's media sections.
func (s *Session) Events() []Event {
	var out []Event
	for _, e := range s.part.Events() {
		if s.room(e) {
			out = append(out, e)
		}
	}
	for _, e := range s.peer.Events() {
		if e := s.transport(e); e != nil {
			out = append(out, e)
		}
	}
	return out
}

// room deals with an event of the participant and reports whether the client has to be told.
func (s *Session) room(e sfu.Event) bool {
	switch e := e.(type) {
	case sfu.DownlinkWanted:
		s.addDownlink(e)
		return false
	case sfu.DownlinkDropped:
		delete(s.downlinks, e.Track)
		s.peer.RemoveDownlink(string(e.Track))
		return false
	case sfu.TrackPublished:
		s.ask(e.CID, e.Track)
	case sfu.TrackRemoved:
		s.uplinks.forget(e.Track)
	}
	return true
}

func (s *Session) addDownlink(e sfu.DownlinkWanted) {
	s.downlinks[e.Track.SID] = e.Codec.Mime()
	err := s.peer.AddDownlink(rtc.DownlinkOptions{
		TrackID:  string(e.Track.SID),
		StreamID: e.StreamID,
		CNAME:    e.CNAME,
		Mime:     e.Codec.Mime(),
		Stereo:   e.Track.Stereo,
	})
	if err != nil {
		s.log.Warn("track not sent", "track", e.Track.SID, "err", err)
	}
}

// transport deals with an event of the peer and returns what the client has to be told, or nil.
func (s *Session) transport(e rtc.Event) Event {
	now := time.Now()
	switch e := e.(type) {
	case rtc.CandidateGathered:
		return Candidate{Target: Target(e.Target), Init: e.Init, Final: e.Final}
	case rtc.OfferReady:
		return Offer{Description{ID: e.ID, SDP: e.SDP, Tracks: tracks(e.Tracks)}}
	case rtc.SectionsNeeded:
		return SectionsNeeded{Audio: e.Audio, Video: e.Video}
	case rtc.StateChanged:
		return s.state(e, now)
	case rtc.DownlinkBound:
		s.bound(e, now)
	case rtc.DownlinkRefused:
		s.part.Reject(sfu.SID(e.TrackID), sfu.SubscriptionCodecUnsupported, now)
	case rtc.BitrateChanged:
		s.peer.Want(s.part.Fit(e.Bitrate, e.Limited, now))
	case rtc.LineChanged:
		s.part.Line(e.Narrow, now)
	case rtc.DataOpen:
		s.part.SetDataWriter(s.peer)
	case rtc.DataReceived:
		return Data{Reliable: e.Reliable, Label: e.Label, Payload: e.Payload}
	case rtc.Failed:
		return Broken{Err: e.Err}
	}
	return nil
}

func (s *Session) state(e rtc.StateChanged, now time.Time) Event {
	switch {
	case !e.Primary:
		return nil
	case e.State == rtc.Connected:
		s.connected, s.since = true, now
		s.ladder.connected(stayOf(s.grant), now)
		s.part.SetState(sfu.Active, now)
		return Connected{}
	case e.State == rtc.Disconnected:
		return TransportSilent{}
	case e.State == rtc.FailedState:
		return TransportFailed{}
	}
	return nil
}

// bound attaches a negotiated downlink to its track.
func (s *Session) bound(e rtc.DownlinkBound, now time.Time) {
	track := sfu.SID(e.TrackID)
	if _, wanted := s.downlinks[track]; !wanted {
		return // dropped meanwhile
	}
	sink, err := s.part.Bind(track, e.Writer, e.RTX, now)
	if err != nil {
		s.log.Debug("track not bound", "track", track, "err", err)
		return
	}
	s.peer.SetSink(e.TrackID, sink)
}
