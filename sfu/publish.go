package sfu

import (
	"slices"
	"sort"
	"strings"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/forward"
)

// What one participant may have waiting, and how long names may be (bytes).
const (
	maxPending  = 20
	maxTracks   = 100
	maxName     = 256
	maxLayers   = 8
	maxFeatures = 16
	maxStreams  = 3 // simulcast streams of a track
)

// The layer modes and audio features of the client protocol that matter here.
const (
	oneSpatialPerStream      = 1
	multipleSpatialPerStream = 2

	featureStereo = 0
	featureNoDTX  = 1
)

// Publish announces a track to come; Negotiated completes it. The same cid asked for again before that keeps its sid. It
// fails with ErrNotAllowed (permission), ErrLimit (too many waiting, or oversized), ErrUnsupported (kind), ErrNotFound (sid of
// a track that is not there) and ErrQueued (the cid is in use by a track that is about to end; TrackPublished follows).
func (p *Participant) Publish(req TrackRequest, now time.Time) (TrackInfo, error) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if err := p.checkRequestLocked(&req); err != nil {
		return TrackInfo{}, err
	}
	pb := &p.publications
	if t := pb.match(pb.pending, req.CID); t != nil {
		t.cids, t.info = requestCIDs(&req), p.room.rooms.describe(&req, t.info.SID)
		return t.info, nil
	}
	if len(pb.pending)+len(pb.queued) >= maxPending || len(pb.tracks)+len(pb.pending) >= maxTracks {
		return TrackInfo{}, ErrLimit
	}
	if pb.match(pb.tracks, req.CID) != nil {
		pb.queued = append(pb.queued, req)
		return TrackInfo{}, ErrQueued
	}
	return p.addPendingLocked(&req).info, nil
}

func (p *Participant) checkRequestLocked(req *TrackRequest) error {
	switch {
	case p.state == Disconnected:
		return ErrClosed
	case req.Kind > Video || req.Source > ScreenShareAudio:
		return ErrUnsupported
	case !p.member.Permission.Publishes(req.Source), !p.member.Permission.fits(req.Kind, req.Source):
		return ErrNotAllowed
	case req.SID != "" && p.publications.find(req.SID) == nil:
		return ErrNotFound
	case req.SID != "": // a second codec beside the first: subscribers all receive the first
		return ErrUnsupported
	case len(req.Name) > maxName || len(req.CID) > maxName || len(req.Stream) > maxName,
		len(req.Layers) > maxLayers || len(req.Codecs) > maxLayers || len(req.AudioFeatures) > maxFeatures || len(req.PacketTrailer) > maxFeatures:
		return ErrLimit
	}
	for i := range req.Codecs {
		if c := &req.Codecs[i]; len(c.Layers) > maxLayers || len(c.CID) > maxName || len(c.Codec) > maxName {
			return ErrLimit
		}
	}
	return nil
}

func (p *Participant) addPendingLocked(req *TrackRequest) *track {
	t := &track{
		owner: p, cids: requestCIDs(req), streams: make(map[*Participant]*subscription),
		info: p.room.rooms.describe(req, newSID(trackPrefix(req.Kind, req.Source))),
	}
	p.publications.pending = append(p.publications.pending, t)
	return t
}

func requestCIDs(req *TrackRequest) []string {
	cids := []string{req.CID}
	for _, c := range req.Codecs {
		if c.CID != "" && !slices.Contains(cids, c.CID) {
			cids = append(cids, c.CID)
		}
	}
	return cids
}

// describe turns a request into the info that answers it.
func (r *Rooms) describe(req *TrackRequest, sid SID) TrackInfo {
	info := TrackInfo{
		SID: sid, Kind: req.Kind, Source: req.Source, Name: req.Name, Muted: req.Muted,
		DisableDTX: req.DisableDTX, DisableRED: req.DisableRED, Stereo: req.Stereo,
		Width: req.Width, Height: req.Height, Layers: sortedLayers(req.Layers),
		Encryption: req.Encryption, BackupCodecPolicy: req.BackupCodecPolicy,
		AudioFeatures: req.AudioFeatures, PacketTrailer: req.PacketTrailer, Stream: req.Stream,
	}
	info.DisableDTX = info.DisableDTX || slices.Contains(req.AudioFeatures, featureNoDTX)
	info.Stereo = info.Stereo || slices.Contains(req.AudioFeatures, featureStereo)
	if info.Stream == "" {
		info.Stream = "camera"
		if req.Source == ScreenShare || req.Source == ScreenShareAudio {
			info.Stream = "screen"
		}
	}
	prefix := "audio/"
	if req.Kind == Video {
		prefix = "video/"
	}
	for i, c := range req.Codecs {
		ci := CodecInfo{CID: c.CID, LayerMode: c.LayerMode, Layers: sortedLayers(c.Layers)}
		if c.Codec != "" {
			if ci.Mime = r.enabled(prefix, prefix+c.Codec); !strings.EqualFold(ci.Mime, prefix+c.Codec) {
				ci.LayerMode = 0 // was meant for another codec
			}
		}
		if i == 0 && len(ci.Layers) == 0 {
			ci.Layers = info.Layers
		}
		info.Codecs = append(info.Codecs, ci)
	}
	if len(info.Codecs) == 0 {
		info.Codecs = []CodecInfo{{CID: req.CID, Layers: info.Layers}}
	}
	if len(info.Layers) == 0 {
		info.Layers = info.Codecs[0].Layers
	}
	for i := range info.Codecs {
		if ci := &info.Codecs[i]; ci.LayerMode == 0 && req.Kind == Video {
			ci.LayerMode = layerMode(codec.Parse(ci.Mime))
		}
	}
	main := info.Codecs[0]
	info.Simulcast = req.Kind == Video && len(main.Layers) > 1 && main.LayerMode != multipleSpatialPerStream
	return info
}

// enabled returns mime as it is listed, or the first enabled codec of its kind.
func (r *Rooms) enabled(prefix, mime string) string {
	fallback := mime
	for i := len(r.options.EnabledCodecs) - 1; i >= 0; i-- {
		e := r.options.EnabledCodecs[i]
		if strings.EqualFold(e, mime) {
			return e
		}
		if strings.HasPrefix(e, prefix) {
			fallback = e
		}
	}
	return fallback
}

func layerMode(c codec.Codec) int32 {
	if c == codec.VP9 || c == codec.AV1 {
		return multipleSpatialPerStream
	}
	return oneSpatialPerStream
}

func sortedLayers(layers []LayerInfo) []LayerInfo {
	if len(layers) == 0 {
		return nil
	}
	out := slices.Clone(layers)
	sort.SliceStable(out, func(i, j int) bool { return out[i].Quality < out[j].Quality })
	return out
}

// announcedAt returns the announced track that has the section, if any.
func announcedAt(tracks []*track, mid string) *track {
	for _, t := range tracks {
		if t.info.MID == mid && mid != "" {
			return t
		}
	}
	return nil
}

// Negotiated says that the section for a track is in the answer. The first time it announces the track to the room, with
// Mime set, and returns the source that its packets go into; later times return the same source. A track that had the section before ends. It
// fails with ErrNotFound and ErrUnsupported (codec).
func (p *Participant) Negotiated(sid SID, m Media, now time.Time) (*forward.Source, error) {
	b := batch{now: now}
	p.room.mu.Lock()
	source, err := p.negotiatedLocked(sid, &m, &b)
	p.room.mu.Unlock()
	b.finish()
	return source, err
}

func (p *Participant) negotiatedLocked(sid SID, m *Media, b *batch) (*forward.Source, error) {
	pb := &p.publications
	t := pb.find(sid)
	switch {
	case t == nil:
		return nil, ErrNotFound
	case codec.Parse(m.Mime) == codec.Unknown || codec.Parse(m.Mime).Video() != (t.info.Kind == Video):
		return nil, ErrUnsupported
	}
	if old := announcedAt(pb.tracks, m.MID); old != nil && old != t { // its section now carries another track
		p.endTrackLocked(old, b)
	}
	if t.source != nil {
		if t.info.MID != m.MID {
			t.info.MID = m.MID
			t.touch(b.now)
			p.changedLocked(b)
		}
		return t.source, nil
	}
	t.negotiate(m)
	t.touch(b.now)
	t.reception.start(b.now)
	pb.pending = slices.DeleteFunc(pb.pending, func(o *track) bool { return o == t })
	pb.tracks = append(pb.tracks, t)
	p.room.tracks[sid] = t
	p.changedLocked(b)
	p.room.offerLocked(t, b)
	t.weighLocked(b)
	return t.source, nil
}

// negotiate fills in what the answer settled and makes the source.
func (t *track) negotiate(m *Media) {
	t.codec = codec.Parse(m.Mime)
	t.info.Mime, t.info.MID = m.Mime, m.MID
	streams := min(max(len(m.RIDs), len(m.SSRCs), 1), maxStreams)
	svc := t.info.Kind == Video && streams == 1 && layerMode(t.codec) == multipleSpatialPerStream
	if t.info.Kind == Video {
		t.info.Layers = negotiatedLayers(&t.info, m, streams, svc)
		t.ladder = newLadder(&t.info)
		t.info.Simulcast = streams > 1
	}
	codecs := slices.Clone(t.info.Codecs)
	codecs[0].Mime, codecs[0].MID, codecs[0].SDPCID, codecs[0].Layers = m.Mime, m.MID, m.SDPCID, t.info.Layers
	if codecs[0].LayerMode == multipleSpatialPerStream && layerMode(t.codec) != multipleSpatialPerStream {
		codecs[0].LayerMode = oneSpatialPerStream
	}
	t.info.Codecs = codecs
	if m.SDPCID != "" && !slices.Contains(t.cids, m.SDPCID) {
		t.cids = append(t.cids, m.SDPCID)
	}
	clock := uint32(90000)
	if t.info.Kind == Audio {
		clock = 48000
	}
	t.source = forward.NewSource(forward.SourceOptions{
		Codec: t.codec, ClockRate: clock, Video: t.info.Kind == Video, Spatials: streams, SVC: svc,
	})
}

// Unpublish ends a track, or takes back a request for one. Unknown tracks are fine.
func (p *Participant) Unpublish(sid SID, now time.Time) {
	b := batch{now: now}
	p.room.mu.Lock()
	p.unpublishLocked(sid, &b)
	p.room.mu.Unlock()
	b.finish()
}

func (p *Participant) unpublishLocked(sid SID, b *batch) {
	pb := &p.publications
	t := pb.find(sid)
	switch {
	case t == nil:
		return
	case t.source == nil:
		pb.pending = slices.DeleteFunc(pb.pending, func(o *track) bool { return o == t })
	default:
		p.endTrackLocked(t, b)
		p.changedLocked(b)
	}
	for i := range pb.queued {
		if slices.Contains(t.cids, pb.queued[i].CID) {
			req := pb.queued[i]
			pb.queued = slices.Delete(pb.queued, i, i+1)
			next := p.addPendingLocked(&req)
			b.tell(p, kindPublished, next.info.SID, TrackPublished{CID: req.CID, Track: next.info})
			break
		}
	}
}
