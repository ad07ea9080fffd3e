package livekit

import (
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"callserver/sfu"
	"callserver/signalling"
)

// The protocol's messages from the room's structs. Enumerations are numbered alike on both sides.

func room(r sfu.RoomInfo) *livekit.Room {
	return &livekit.Room{
		Sid:              string(r.SID),
		Name:             string(r.Name),
		Metadata:         r.Metadata,
		EmptyTimeout:     seconds(r.EmptyTimeout),
		DepartureTimeout: seconds(r.DepartureTimeout),
		MaxParticipants:  uint32(r.MaxParticipants),
		CreationTime:     r.CreatedAt.Unix(),
		CreationTimeMs:   r.CreatedAt.UnixMilli(),
		NumParticipants:  uint32(r.Participants),
		NumPublishers:    uint32(r.Publishers),
	}
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }

func participants(list []*sfu.ParticipantInfo) []*livekit.ParticipantInfo {
	out := make([]*livekit.ParticipantInfo, len(list))
	for i, p := range list {
		out[i] = participant(p)
	}
	return out
}

func participant(p *sfu.ParticipantInfo) *livekit.ParticipantInfo {
	info := &livekit.ParticipantInfo{
		Sid:              string(p.SID),
		Identity:         string(p.Identity),
		Name:             p.Name,
		Metadata:         p.Metadata,
		Attributes:       p.Attributes,
		Kind:             livekit.ParticipantInfo_Kind(p.Kind),
		State:            livekit.ParticipantInfo_State(p.State),
		JoinedAt:         p.JoinedAt.Unix(),
		JoinedAtMs:       p.JoinedAt.UnixMilli(),
		Version:          p.Version,
		Permission:       permission(p.Permission),
		IsPublisher:      p.Publisher,
		DisconnectReason: livekit.DisconnectReason(p.Reason),
		ClientProtocol:   p.Client.ClientProtocol,
	}
	for _, t := range p.Tracks {
		info.Tracks = append(info.Tracks, track(t))
	}
	for _, c := range p.Client.Capabilities {
		info.Capabilities = append(info.Capabilities, livekit.ClientInfo_Capability(c))
	}
	return info
}

func permission(p sfu.Permission) *livekit.ParticipantPermission {
	out := &livekit.ParticipantPermission{
		CanSubscribe:      p.CanSubscribe,
		CanPublish:        p.CanPublish,
		CanPublishData:    p.CanPublishData,
		CanUpdateMetadata: p.CanUpdateMetadata,
		Hidden:            p.Hidden,
		Recorder:          p.Recorder,
		Agent:             p.Agent,
	}
	for _, s := range p.CanPublishSources {
		out.CanPublishSources = append(out.CanPublishSources, livekit.TrackSource(s))
	}
	return out
}

func track(t sfu.TrackInfo) *livekit.TrackInfo {
	info := &livekit.TrackInfo{
		Sid:               string(t.SID),
		Type:              livekit.TrackType(t.Kind),
		Source:            livekit.TrackSource(t.Source),
		Name:              t.Name,
		Muted:             t.Muted,
		Width:             t.Width,
		Height:            t.Height,
		Simulcast:         t.Simulcast,
		DisableDtx:        t.DisableDTX,
		DisableRed:        t.DisableRED,
		Stereo:            t.Stereo,
		MimeType:          t.Mime,
		Mid:               t.MID,
		Stream:            t.Stream,
		Layers:            layers(t.Layers),
		Encryption:        livekit.Encryption_Type(t.Encryption),
		BackupCodecPolicy: livekit.BackupCodecPolicy(t.BackupCodecPolicy),
		Version:           &livekit.TimedVersion{UnixMicro: t.Version.UnixMicro, Ticks: t.Version.Ticks},
	}
	for _, c := range t.Codecs {
		info.Codecs = append(info.Codecs, &livekit.SimulcastCodecInfo{
			MimeType: c.Mime, Mid: c.MID, Cid: c.CID, SdpCid: c.SDPCID,
			Layers: layers(c.Layers), VideoLayerMode: livekit.VideoLayer_Mode(c.LayerMode),
		})
	}
	for _, f := range t.AudioFeatures {
		info.AudioFeatures = append(info.AudioFeatures, livekit.AudioTrackFeature(f))
	}
	for _, f := range t.PacketTrailer {
		info.PacketTrailerFeatures = append(info.PacketTrailerFeatures, livekit.PacketTrailerFeature(f))
	}
	return info
}

func layers(list []sfu.LayerInfo) []*livekit.VideoLayer {
	var out []*livekit.VideoLayer
	for _, l := range list {
		out = append(out, &livekit.VideoLayer{
			Quality: livekit.VideoQuality(l.Quality), Width: l.Width, Height: l.Height, Bitrate: l.Bitrate,
			Ssrc: l.SSRC, Rid: l.RID, SpatialLayer: int32(l.Spatial),
		})
	}
	return out
}

func speakers(e sfu.Speakers) *livekit.SpeakersChanged {
	out := &livekit.SpeakersChanged{}
	for _, s := range e.Speakers {
		out.Speakers = append(out.Speakers, &livekit.SpeakerInfo{Sid: string(s.SID), Level: s.Level, Active: s.Active})
	}
	return out
}

func qualities(e sfu.Qualities) *livekit.ConnectionQualityUpdate {
	out := &livekit.ConnectionQualityUpdate{}
	for _, q := range e.Qualities {
		out.Updates = append(out.Updates, &livekit.ConnectionQualityInfo{
			ParticipantSid: string(q.SID), Quality: livekit.ConnectionQuality(q.Quality), Score: q.Score,
		})
	}
	return out
}

func description(kind string, d signalling.Description) *livekit.SessionDescription {
	out := &livekit.SessionDescription{Type: kind, Sdp: d.SDP, Id: d.ID}
	for mid, sid := range d.Tracks {
		if out.MidToTrackId == nil {
			out.MidToTrackId = make(map[string]string, len(d.Tracks))
		}
		out.MidToTrackId[mid] = string(sid)
	}
	return out
}

// enabledCodecs lists what may be published: clients publish without waiting if a video codec is listed, and fall back
// to the first one. Retransmission formats do not belong in it.
func enabledCodecs(mimes []string) []*livekit.Codec {
	var out []*livekit.Codec
	for _, mime := range mimes {
		out = append(out, &livekit.Codec{Mime: mime})
	}
	return out
}

// The room's structs from the protocol's messages.

func sids(list []string) []sfu.SID {
	out := make([]sfu.SID, len(list))
	for i, s := range list {
		out[i] = sfu.SID(s)
	}
	return out
}

func clientInfo(c *livekit.ClientInfo) sfu.ClientInfo {
	info := sfu.ClientInfo{
		SDK:            strings.ToLower(c.GetSdk().String()),
		Version:        c.GetVersion(),
		OS:             c.GetOs(),
		Browser:        c.GetBrowser(),
		Protocol:       c.GetProtocol(),
		ClientProtocol: c.GetClientProtocol(),
	}
	for _, capability := range c.GetCapabilities() {
		info.Capabilities = append(info.Capabilities, int32(capability))
	}
	return info
}

func permitted(p *livekit.ParticipantPermission) sfu.Permission {
	out := sfu.Permission{
		CanSubscribe:      p.GetCanSubscribe(),
		CanPublish:        p.GetCanPublish(),
		CanPublishData:    p.GetCanPublishData(),
		CanUpdateMetadata: p.GetCanUpdateMetadata(),
		Hidden:            p.GetHidden(),
		Recorder:          p.GetRecorder(),
		Agent:             p.GetAgent(),
	}
	for _, source := range p.GetCanPublishSources() {
		out.CanPublishSources = append(out.CanPublishSources, sfu.TrackSource(source))
	}
	return out
}

func trackRequest(r *livekit.AddTrackRequest) sfu.TrackRequest {
	out := sfu.TrackRequest{
		CID:               r.GetCid(),
		SID:               sfu.SID(r.GetSid()),
		Name:              r.GetName(),
		Stream:            r.GetStream(),
		Kind:              sfu.Kind(r.GetType()),
		Source:            sfu.TrackSource(r.GetSource()),
		Muted:             r.GetMuted(),
		Width:             r.GetWidth(),
		Height:            r.GetHeight(),
		Layers:            layerInfos(r.GetLayers()),
		Encryption:        int32(r.GetEncryption()),
		BackupCodecPolicy: int32(r.GetBackupCodecPolicy()),
		DisableRED:        r.GetDisableRed(),
		DisableDTX:        r.GetDisableDtx(),
		Stereo:            r.GetStereo(),
	}
	for _, c := range r.GetSimulcastCodecs() {
		out.Codecs = append(out.Codecs, sfu.CodecRequest{
			Codec: c.GetCodec(), CID: c.GetCid(), Layers: layerInfos(c.GetLayers()), LayerMode: int32(c.GetVideoLayerMode()),
		})
	}
	for _, f := range r.GetAudioFeatures() {
		switch f {
		case livekit.AudioTrackFeature_TF_NO_DTX:
			out.DisableDTX = true
		case livekit.AudioTrackFeature_TF_STEREO:
			out.Stereo = true
		}
		out.AudioFeatures = append(out.AudioFeatures, int32(f))
	}
	for _, f := range r.GetPacketTrailerFeatures() {
		out.PacketTrailer = append(out.PacketTrailer, int32(f))
	}
	return out
}

func layerInfos(list []*livekit.VideoLayer) []sfu.LayerInfo {
	var out []sfu.LayerInfo
	for _, l := range list {
		out = append(out, sfu.LayerInfo{
			Quality: quality(l.GetQuality()), Width: l.GetWidth(), Height: l.GetHeight(), Bitrate: l.GetBitrate(),
			SSRC: l.GetSsrc(), RID: l.GetRid(),
		})
	}
	return out
}

// quality bounds an enumeration from the network.
func quality(q livekit.VideoQuality) sfu.Quality {
	if q < livekit.VideoQuality_LOW || q > livekit.VideoQuality_OFF {
		return sfu.High
	}
	return sfu.Quality(q)
}

func settings(s *livekit.UpdateTrackSettings) sfu.TrackSettings {
	return sfu.TrackSettings{
		Disabled: s.GetDisabled(),
		Quality:  quality(s.GetQuality()),
		Width:    s.GetWidth(),
		Height:   s.GetHeight(),
		FPS:      s.GetFps(),
		Priority: s.GetPriority(),
	}
}

func trackPermissions(s *livekit.SubscriptionPermission) []sfu.TrackPermission {
	var out []sfu.TrackPermission
	for _, t := range s.GetTrackPermissions() {
		out = append(out, sfu.TrackPermission{
			Participant: sfu.SID(t.GetParticipantSid()),
			Identity:    sfu.Identity(t.GetParticipantIdentity()),
			All:         t.GetAllTracks(),
			Tracks:      sids(t.GetTrackSids()),
		})
	}
	return out
}
