package livekit

import (
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"callserver/sfu"
	"callserver/signalling"
)

// Seconds between a client's pings, and without any message from us after which it takes the connection for dead. A client whose address changed
// notices by nothing else: its sockets stay as they were.
const (
	clientPingInterval = 2
	clientPingTimeout  = 6
)

// serverInfo is what clients choose their behaviour by. Up to version 1.13.6 they send VP9 and AV1 as SVC instead of
// as simulcast, and protocol 18 would have them expect data channels with agreed ids.
var serverInfo = &livekit.ServerInfo{
	Edition:  livekit.ServerInfo_Standard,
	Version:  "1.13.5",
	Protocol: 17,
}

// greet queues what a client that joins is told first, and does what it asked for in the URL.
func (c *client) greet(h hello) {
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Join{Join: c.joinResponse()}})
	c.sendToken()
	c.sess.Start()
	for _, r := range h.GetAddTrackRequests() {
		c.addTrack(r)
	}
	c.tell() // the tracks there are go into the first answer
	if offer := h.GetPublisherOffer(); offer.GetSdp() != "" {
		c.offer(offer)
	}
}

func (c *client) joinResponse() *livekit.JoinResponse {
	now := c.sess.Snapshot()
	m := &livekit.JoinResponse{
		Room:                room(now.Room),
		Participant:         participant(now.Self),
		ServerVersion:       serverInfo.Version,
		ServerInfo:          serverInfo,
		IceServers:          c.iceServers(),
		ClientConfiguration: c.configuration(),
		// A client with one connection has no subscriber side.
		SubscriberPrimary:    !c.sess.Single() && now.Self.Permission.CanSubscribe,
		FastPublish:          now.Self.Permission.CanPublish,
		PingInterval:         clientPingInterval,
		PingTimeout:          clientPingTimeout,
		SifTrailer:           c.edge.server.InjectionMark(now.Room.SID),
		EnabledPublishCodecs: enabledCodecs(c.edge.server.Rooms().EnabledCodecs()),
	}
	list(m, othersOfJoin, now.Others...)
	return m
}

// sendReconnect tells a client that came back where the room stands.
func (c *client) sendReconnect() {
	now := c.sess.Snapshot()
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Reconnect{Reconnect: &livekit.ReconnectResponse{
		IceServers: c.iceServers(), ClientConfiguration: c.configuration(), ServerInfo: serverInfo, LastMessageSeq: c.sequence,
	}}})
	all := &livekit.ParticipantUpdate{FullSnapshot: true}
	list(all, participantsOfUpdate, append([]*sfu.ParticipantInfo{now.Self}, now.Others...)...)
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Update{Update: all}})
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_RoomUpdate{RoomUpdate: &livekit.RoomUpdate{Room: room(now.Room)}}})
	c.sendToken()
}

// configuration is what the client is to do otherwise than it would, nil for nothing.
func (c *client) configuration() *livekit.ClientConfiguration {
	if !c.sess.RelayAlone() {
		return nil
	}
	return &livekit.ClientConfiguration{ForceRelay: livekit.ClientConfigSetting_ENABLED}
}

func (c *client) iceServers() []*livekit.ICEServer {
	var list []*livekit.ICEServer
	for _, s := range c.sess.ICEServers() {
		list = append(list, &livekit.ICEServer{Urls: s.URLs, Username: s.Username, Credential: s.Credential})
	}
	return list
}

func (c *client) sendLeave(reason sfu.Reason, action livekit.LeaveRequest_Action) {
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Leave{Leave: leaveRequest(reason, action)}})
}

func leaveRequest(reason sfu.Reason, action livekit.LeaveRequest_Action) *livekit.LeaveRequest {
	return &livekit.LeaveRequest{
		Reason:       livekit.DisconnectReason(reason),
		Action:       action,
		CanReconnect: action != livekit.LeaveRequest_DISCONNECT, // clients of protocol 12 and less
	}
}

// mismatch makes the connection of a client whose session is not known say so and end.
func mismatch(p *pipe) *pipe {
	c := client{pipe: p}
	c.sendLeave(sfu.StateMismatch, livekit.LeaveRequest_RECONNECT)
	c.hangUp()
	return p
}

func (c *client) sendTrackPublished(cid string, t sfu.TrackInfo) {
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_TrackPublished{
		TrackPublished: &livekit.TrackPublishedResponse{Cid: cid, Track: track(t)},
	}})
}

// tell passes on what happened in the room and to the connection.
func (c *client) tell() {
	for _, e := range c.sess.Events() {
		if c.over {
			return
		}
		switch e := e.(type) {
		case signalling.Connected:
			c.connected(time.Now())
		case signalling.TransportSilent:
			c.silent(time.Now())
		case signalling.TransportFailed:
			if c.sess.EverConnected() { // otherwise the client still tries, and gives up by itself
				c.failed()
			}
		case signalling.Broken:
			c.log.Warn("connection broken", "err", e.Err)
			c.finish(sfu.StateMismatch, livekit.LeaveRequest_RECONNECT)
		case signalling.Data:
			c.data(e)
		case sfu.Closed:
			c.finish(e.Reason, closing(e.Reason))
		case sfu.ParticipantsChanged:
			c.send(response(e))
			c.followSelf(e.Participants)
		default:
			if m := response(e); m != nil {
				c.send(m)
			}
		}
	}
}

// closing says what a client whom the room closed should do.
func closing(why sfu.Reason) livekit.LeaveRequest_Action {
	switch why {
	case sfu.ServerShutdown, sfu.StateMismatch, sfu.ConnectionTimeout, sfu.MediaFailure:
		return livekit.LeaveRequest_RECONNECT
	}
	return livekit.LeaveRequest_DISCONNECT
}

// response is an event in the protocol's words, nil if it has none.
func response(e signalling.Event) *livekit.SignalResponse {
	m := &livekit.SignalResponse{}
	switch e := e.(type) {
	case signalling.Offer:
		m.Message = &livekit.SignalResponse_Offer{Offer: description("offer", e.Description)}
	case signalling.Candidate:
		m.Message = &livekit.SignalResponse_Trickle{Trickle: &livekit.TrickleRequest{
			CandidateInit: e.Init, Target: livekit.SignalTarget(e.Target), Final: e.Final,
		}}
	case signalling.SectionsNeeded:
		m.Message = &livekit.SignalResponse_MediaSectionsRequirement{MediaSectionsRequirement: &livekit.MediaSectionsRequirement{
			NumAudios: uint32(e.Audio), NumVideos: uint32(e.Video),
		}}
	case sfu.ParticipantsChanged:
		update := &livekit.ParticipantUpdate{}
		list(update, participantsOfUpdate, e.Participants...)
		m.Message = &livekit.SignalResponse_Update{Update: update}
	case sfu.RoomChanged:
		m.Message = &livekit.SignalResponse_RoomUpdate{RoomUpdate: &livekit.RoomUpdate{Room: room(e.Room)}}
	case sfu.SubscriptionFailed:
		m.Message = &livekit.SignalResponse_SubscriptionResponse{SubscriptionResponse: &livekit.SubscriptionResponse{
			TrackSid: string(e.Track), Err: livekit.SubscriptionError(e.Code),
		}}
	case sfu.SubscriptionPermission:
		m.Message = &livekit.SignalResponse_SubscriptionPermissionUpdate{SubscriptionPermissionUpdate: &livekit.SubscriptionPermissionUpdate{
			ParticipantSid: string(e.Publisher), TrackSid: string(e.Track), Allowed: e.Allowed,
		}}
	case sfu.StreamChanged:
		m.Message = &livekit.SignalResponse_StreamStateUpdate{StreamStateUpdate: streamState(e)}
	case sfu.Speakers:
		m.Message = &livekit.SignalResponse_SpeakersChanged{SpeakersChanged: speakers(e)}
	case sfu.Qualities:
		m.Message = &livekit.SignalResponse_ConnectionQuality{ConnectionQuality: qualities(e)}
	default:
		return publication(e)
	}
	return m
}

func streamState(e sfu.StreamChanged) *livekit.StreamStateUpdate {
	state := livekit.StreamState_ACTIVE
	if e.Paused {
		state = livekit.StreamState_PAUSED
	}
	return &livekit.StreamStateUpdate{StreamStates: []*livekit.StreamStateInfo{
		{ParticipantSid: string(e.Publisher), TrackSid: string(e.Track), State: state},
	}}
}

// publication is an event about a track of the client's own, nil if it is something else.
func publication(e signalling.Event) *livekit.SignalResponse {
	m := &livekit.SignalResponse{}
	switch e := e.(type) {
	case sfu.FirstSubscriber:
		m.Message = &livekit.SignalResponse_TrackSubscribed{TrackSubscribed: &livekit.TrackSubscribed{TrackSid: string(e.Track)}}
	case sfu.QualitiesWanted:
		m.Message = &livekit.SignalResponse_SubscribedQualityUpdate{SubscribedQualityUpdate: subscribedQuality(e)}
	case sfu.MuteRequested:
		m.Message = &livekit.SignalResponse_Mute{Mute: &livekit.MuteTrackRequest{Sid: string(e.Track), Muted: e.Muted}}
	case sfu.TrackPublished:
		m.Message = &livekit.SignalResponse_TrackPublished{TrackPublished: &livekit.TrackPublishedResponse{Cid: e.CID, Track: track(e.Track)}}
	case sfu.TrackRemoved:
		m.Message = &livekit.SignalResponse_TrackUnpublished{TrackUnpublished: &livekit.TrackUnpublishedResponse{TrackSid: string(e.Track)}}
	default:
		return nil
	}
	return m
}

// subscribedQuality lists every quality as wanted or not. The flat list is for old clients.
func subscribedQuality(e sfu.QualitiesWanted) *livekit.SubscribedQualityUpdate {
	update := &livekit.SubscribedQualityUpdate{TrackSid: string(e.Track)}
	for _, c := range e.Codecs {
		codec := &livekit.SubscribedCodec{Codec: subtype(c.Mime)}
		for q := sfu.Low; q <= sfu.High; q++ {
			codec.Qualities = append(codec.Qualities, &livekit.SubscribedQuality{
				Quality: livekit.VideoQuality(q), Enabled: c.Max != sfu.Off && q <= c.Max,
			})
		}
		update.SubscribedCodecs = append(update.SubscribedCodecs, codec)
	}
	if len(update.SubscribedCodecs) > 0 {
		update.SubscribedQualities = update.SubscribedCodecs[0].Qualities
	}
	return update
}

// subtype is a codec without its kind: "vp8" of "video/VP8".
func subtype(mime string) string {
	_, name, _ := strings.Cut(mime, "/")
	return strings.ToLower(name)
}
