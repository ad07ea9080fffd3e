package sfu

import (
	"maps"
	"slices"
	"time"
)

// Limits of what participants say of themselves, in bytes.
const (
	maxMetadata   = 512 << 10
	maxAttributes = 64 << 10
)

// Mute says that the participant muted or unmuted its track. Everyone is told, the participant included. It fails with ErrNotFound.
func (p *Participant) Mute(sid SID, muted bool, now time.Time) error {
	return p.changeTrack(sid, now, func(info *TrackInfo) { info.Muted = muted })
}

// UpdateAudioTrack replaces the features of an audio track. It fails with ErrNotFound and ErrLimit.
func (p *Participant) UpdateAudioTrack(sid SID, features []int32, now time.Time) error {
	if len(features) > maxFeatures {
		return ErrLimit
	}
	features = slices.Clone(features)
	return p.changeTrack(sid, now, func(info *TrackInfo) { info.AudioFeatures = features })
}

// UpdateVideoTrack replaces the size of a video track, in pixels. It fails with ErrNotFound.
func (p *Participant) UpdateVideoTrack(sid SID, width, height uint32, now time.Time) error {
	return p.changeTrack(sid, now, func(info *TrackInfo) { info.Width, info.Height = width, height })
}

func (p *Participant) changeTrack(sid SID, now time.Time, change func(*TrackInfo)) error {
	b := batch{now: now}
	p.room.mu.Lock()
	t := p.publications.find(sid)
	if t != nil {
		p.changeTrackLocked(t, change, &b)
	}
	p.room.mu.Unlock()
	b.finish()
	if t == nil {
		return ErrNotFound
	}
	return nil
}

func (p *Participant) changeTrackLocked(t *track, change func(*TrackInfo), b *batch) {
	muted := t.info.Muted
	change(&t.info)
	if t.source == nil { // nobody knows of it yet
		return
	}
	if t.info.Muted != muted {
		for _, s := range t.streams {
			s.retargetLocked(b)
		}
	}
	t.reception.excuse(b.now)
	t.touch(b.now)
	p.changedLocked(b)
}

// MuteTrack mutes a participant's track for the server API: its client is asked to, and everyone is told. Unmuting fails with
// ErrNotAllowed unless the options allow it; unknown participants and tracks with ErrNotFound.
func (r *Rooms) MuteTrack(id RoomID, who Identity, sid SID, muted bool, now time.Time) (TrackInfo, error) {
	p := r.Participant(id, who)
	if p == nil {
		return TrackInfo{}, ErrNotFound
	}
	b := batch{now: now}
	p.room.mu.Lock()
	info, err := p.muteLocked(sid, muted, &b)
	p.room.mu.Unlock()
	b.finish()
	return info, err
}

func (p *Participant) muteLocked(sid SID, muted bool, b *batch) (TrackInfo, error) {
	t := p.publications.find(sid)
	switch {
	case t == nil:
		return TrackInfo{}, ErrNotFound
	case !muted && t.info.Muted && !p.room.rooms.options.RemoteUnmute:
		return t.info, ErrNotAllowed
	}
	if t.info.Muted != muted {
		p.changeTrackLocked(t, func(info *TrackInfo) { info.Muted = muted }, b)
		b.tell(p, kindMute, sid, MuteRequested{sid, muted})
	}
	return t.info, nil
}

// Update changes what the participant says of itself; nil leaves a field alone, an empty attribute value removes the attribute.
// It fails with ErrNotAllowed and ErrLimit, having changed nothing.
func (p *Participant) Update(name, metadata *string, attributes map[string]string, now time.Time) error {
	b := batch{now: now}
	p.room.mu.Lock()
	err := ErrNotAllowed
	if p.member.Permission.CanUpdateMetadata {
		err = p.updateLocked(name, metadata, attributes, &b)
	}
	p.room.mu.Unlock()
	b.finish()
	return err
}

// UpdateParticipant is Update for the server API, whatever the participant's permissions. It also fails with ErrNotFound.
func (r *Rooms) UpdateParticipant(id RoomID, who Identity, name, metadata *string, attributes map[string]string, now time.Time) error {
	p := r.Participant(id, who)
	if p == nil {
		return ErrNotFound
	}
	b := batch{now: now}
	p.room.mu.Lock()
	err := p.updateLocked(name, metadata, attributes, &b)
	p.room.mu.Unlock()
	b.finish()
	return err
}

func (p *Participant) updateLocked(name, metadata *string, attributes map[string]string, b *batch) error {
	if p.state == Disconnected {
		return ErrClosed
	}
	merged := p.member.Attributes
	if len(attributes) > 0 {
		merged = mergeAttributes(merged, attributes)
	}
	if name != nil && len(*name) > maxName || metadata != nil && len(*metadata) > maxMetadata || attributesSize(merged) > maxAttributes {
		return ErrLimit
	}
	if name != nil {
		p.member.Name = *name
	}
	if metadata != nil {
		p.member.Metadata = *metadata
	}
	p.member.Attributes = merged
	p.changedLocked(b)
	return nil
}

func mergeAttributes(old, change map[string]string) map[string]string {
	merged := maps.Clone(old)
	if merged == nil {
		merged = make(map[string]string, len(change))
	}
	for k, v := range change {
		if v == "" {
			delete(merged, k)
		} else {
			merged[k] = v
		}
	}
	return merged
}

func attributesSize(attributes map[string]string) int {
	n := 0
	for k, v := range attributes {
		n += len(k) + len(v)
	}
	return n
}
