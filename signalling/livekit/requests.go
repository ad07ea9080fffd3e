package livekit

import (
	"errors"
	"time"

	"github.com/livekit/protocol/livekit"

	"callserver/sfu"
	"callserver/signalling"
)

// handle acts on one request. What is not listed is ignored, as clients of other versions expect.
func (c *client) handle(req *livekit.SignalRequest) {
	switch m := req.Message.(type) {
	case *livekit.SignalRequest_Offer:
		c.offer(m.Offer)
	case *livekit.SignalRequest_Answer:
		c.answer(m.Answer)
	case *livekit.SignalRequest_Trickle:
		c.trickle(m.Trickle)
	case *livekit.SignalRequest_AddTrack:
		c.addTrack(m.AddTrack)
	case *livekit.SignalRequest_Mute:
		c.mute(m.Mute)
	case *livekit.SignalRequest_Subscription:
		c.subscribe(m.Subscription)
	case *livekit.SignalRequest_TrackSetting:
		c.sess.Settings(sids(m.TrackSetting.GetTrackSids()), settings(m.TrackSetting))
	case *livekit.SignalRequest_SubscriptionPermission:
		c.sess.Permissions(m.SubscriptionPermission.GetAllParticipants(), trackPermissions(m.SubscriptionPermission))
	case *livekit.SignalRequest_UpdateMetadata:
		c.updateMetadata(m.UpdateMetadata)
	case *livekit.SignalRequest_UpdateAudioTrack:
		c.updateAudioTrack(m.UpdateAudioTrack)
	case *livekit.SignalRequest_UpdateVideoTrack:
		c.updateVideoTrack(m.UpdateVideoTrack)
	case *livekit.SignalRequest_Leave:
		c.finish(sfu.ClientInitiated, livekit.LeaveRequest_DISCONNECT)
	case *livekit.SignalRequest_SyncState:
		c.syncState(m.SyncState)
	case *livekit.SignalRequest_Simulate:
		c.simulate(m.Simulate)
	case *livekit.SignalRequest_Ping:
		c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Pong{Pong: time.Now().UnixMilli()}})
	case *livekit.SignalRequest_PingReq:
		c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_PongResp{PongResp: &livekit.Pong{
			LastPingTimestamp: m.PingReq.GetTimestamp(), Timestamp: time.Now().UnixMilli(),
		}}})
	}
}

// offer answers the client's offer. Where that fails the two ends disagree about the connection, and joining anew is
// the only way to agree again.
func (c *client) offer(d *livekit.SessionDescription) {
	answer, err := c.sess.Offer(d.GetId(), d.GetSdp())
	if err != nil {
		c.log.Warn("offer refused", "err", err)
		c.finish(sfu.StateMismatch, livekit.LeaveRequest_RECONNECT)
		return
	}
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Answer{Answer: description("answer", answer)}})
}

func (c *client) answer(d *livekit.SessionDescription) {
	if err := c.sess.Answer(d.GetId(), d.GetSdp()); err != nil {
		c.log.Warn("answer refused", "err", err)
		c.finish(sfu.StateMismatch, livekit.LeaveRequest_RECONNECT)
	}
}

func (c *client) trickle(t *livekit.TrickleRequest) {
	if t.GetCandidateInit() != "" {
		c.sess.Candidate(signalling.Target(t.GetTarget()), t.GetCandidateInit())
	}
}

// addTrack is answered at once, whenever media arrives.
func (c *client) addTrack(r *livekit.AddTrackRequest) {
	info, err := c.sess.Publish(trackRequest(r))
	if err != nil {
		c.respond(&livekit.RequestResponse{
			Reason:  failure(err),
			Message: err.Error(),
			Request: &livekit.RequestResponse_AddTrack{AddTrack: r},
		})
		return
	}
	c.sendTrackPublished(r.GetCid(), info)
}

func (c *client) mute(r *livekit.MuteTrackRequest) {
	if err := c.sess.Mute(sfu.SID(r.GetSid()), r.GetMuted()); err != nil {
		c.respond(&livekit.RequestResponse{
			Reason: failure(err), Message: err.Error(), Request: &livekit.RequestResponse_Mute{Mute: r},
		})
	}
}

// subscribe goes by track: clients leave out or repeat the participants.
func (c *client) subscribe(r *livekit.UpdateSubscription) {
	tracks := sids(r.GetTrackSids())
	for _, p := range r.GetParticipantTracks() {
		tracks = append(tracks, sids(p.GetTrackSids())...)
	}
	c.sess.Subscribe(tracks, r.GetSubscribe())
}

func (c *client) updateMetadata(r *livekit.UpdateParticipantMetadata) {
	answer := &livekit.RequestResponse{
		RequestId: r.GetRequestId(),
		Request:   &livekit.RequestResponse_UpdateMetadata{UpdateMetadata: r},
	}
	if err := c.update(r); err != nil {
		answer.Reason, answer.Message = failure(err), err.Error()
	}
	c.respond(answer)
}

func (c *client) update(r *livekit.UpdateParticipantMetadata) error {
	switch {
	case len(r.GetName()) > maxIdentity, len(r.GetMetadata()) > maxMetadata, attributesSize(r.GetAttributes()) > maxAttributes:
		return sfu.ErrLimit
	}
	var name, metadata *string // an empty one means unchanged
	if r.Name != "" {
		name = &r.Name
	}
	if r.Metadata != "" {
		metadata = &r.Metadata
	}
	return c.sess.Update(name, metadata, r.GetAttributes())
}

func (c *client) updateAudioTrack(r *livekit.UpdateLocalAudioTrack) {
	features := make([]int32, len(r.GetFeatures()))
	for i, f := range r.GetFeatures() {
		features[i] = int32(f)
	}
	if err := c.sess.UpdateAudioTrack(sfu.SID(r.GetTrackSid()), features); err != nil {
		c.respond(&livekit.RequestResponse{
			Reason: failure(err), Message: err.Error(),
			Request: &livekit.RequestResponse_UpdateAudioTrack{UpdateAudioTrack: r},
		})
	}
}

func (c *client) updateVideoTrack(r *livekit.UpdateLocalVideoTrack) {
	if err := c.sess.UpdateVideoTrack(sfu.SID(r.GetTrackSid()), r.GetWidth(), r.GetHeight()); err != nil {
		c.respond(&livekit.RequestResponse{
			Reason: failure(err), Message: err.Error(),
			Request: &livekit.RequestResponse_UpdateVideoTrack{UpdateVideoTrack: r},
		})
	}
}

// syncState is what a client that resumed believes. If it publishes something that the server does not know, the two
// sessions are not the same any more.
func (c *client) syncState(s *livekit.SyncState) {
	known := map[string]bool{}
	for _, t := range c.sess.Info().Tracks {
		known[string(t.SID)] = true
	}
	for _, p := range s.GetPublishTracks() {
		if sid := p.GetTrack().GetSid(); !known[sid] && !c.sess.Announced(sfu.SID(sid)) {
			c.log.Info("client publishes an unknown track", "track", sid)
			c.finish(sfu.StateMismatch, livekit.LeaveRequest_RECONNECT)
			return
		}
	}
	if s.GetSubscription() != nil { // the exceptions from what a fresh join would receive
		c.subscribe(s.GetSubscription())
	}
	if off := sids(s.GetTrackSidsDisabled()); len(off) > 0 {
		c.sess.Settings(off, sfu.TrackSettings{Disabled: true})
	}
}

// simulate breaks things on purpose, for the test suites of client SDKs.
func (c *client) simulate(s *livekit.SimulateScenario) {
	switch s.GetScenario().(type) {
	case *livekit.SimulateScenario_NodeFailure, *livekit.SimulateScenario_Migration:
		c.close(sfu.SignalClose)
	case *livekit.SimulateScenario_ServerLeave:
		c.finish(sfu.ClientInitiated, livekit.LeaveRequest_DISCONNECT)
	case *livekit.SimulateScenario_LeaveRequestFullReconnect:
		c.finish(sfu.ClientInitiated, livekit.LeaveRequest_RECONNECT)
	case *livekit.SimulateScenario_DisconnectSignalOnResume:
		c.failing.cutResume = true
	case *livekit.SimulateScenario_DisconnectSignalOnResumeNoMessages:
		c.failing.cutResumeSilently = true
	}
}

// respond answers a request that failed, or one whose client waits for an answer either way.
func (c *client) respond(r *livekit.RequestResponse) {
	if r.Reason == livekit.RequestResponse_OK && c.protocol <= 14 {
		return // would take it for an error
	}
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_RequestResponse{RequestResponse: r}})
}

func failure(err error) livekit.RequestResponse_Reason {
	switch {
	case errors.Is(err, sfu.ErrNotAllowed):
		return livekit.RequestResponse_NOT_ALLOWED
	case errors.Is(err, sfu.ErrNotFound):
		return livekit.RequestResponse_NOT_FOUND
	case errors.Is(err, sfu.ErrLimit):
		return livekit.RequestResponse_LIMIT_EXCEEDED
	case errors.Is(err, sfu.ErrUnsupported):
		return livekit.RequestResponse_UNSUPPORTED_TYPE
	case errors.Is(err, sfu.ErrQueued):
		return livekit.RequestResponse_QUEUED
	}
	return livekit.RequestResponse_UNCLASSIFIED_ERROR
}
