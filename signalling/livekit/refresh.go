package livekit

import (
	"maps"
	"slices"
	"time"

	"github.com/livekit/protocol/livekit"

	"callserver/sfu"
	"callserver/signalling/token"
)

// refreshEvery is how often a client gets a new token. One lives for ten minutes at least, so a client that was cut off for
// five comes back with the one it has.
const refreshEvery = 5 * time.Minute

// maxTokenText is the longest metadata and attributes, in bytes, that a refreshed token takes over from the session:
// tokens travel in URLs.
const maxTokenText = 8 << 10

// sendToken hands out a fresh token, so that a client whose own has run out can still resume and reconnect. It says what
// the first one said, its origin included: what is revoked stays so, and who lost the place gets none.
func (c *client) sendToken() {
	now := time.Now()
	c.refresh = now.Add(refreshEvery)
	if c.edge.server.Revoked(c.grant) {
		return // on its way out
	}
	fresh, err := c.edge.keys.Refresh(c.grant, now)
	if err != nil {
		c.log.Error("token not refreshed", "err", err)
		return
	}
	c.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_RefreshToken{RefreshToken: fresh}})
}

// followSelf gives the client a new token when it is described, or may do, something else than its token says.
// Joining anew would bring back the old otherwise.
func (c *client) followSelf(list []*sfu.ParticipantInfo) {
	for _, p := range list {
		if p.SID == c.sess.SID() && p.State != sfu.Disconnected && rewrite(&c.grant, p) {
			c.sendToken()
		}
	}
}

// rewrite makes the grant say what the participant is by now and reports whether that is news.
func rewrite(g *token.Grant, p *sfu.ParticipantInfo) (changed bool) {
	if len(p.Metadata)+attributesSize(p.Attributes) <= maxTokenText {
		changed = g.Name != p.Name || g.Metadata != p.Metadata || !maps.Equal(g.Attributes, p.Attributes)
		g.Name, g.Metadata, g.Attributes = p.Name, p.Metadata, p.Attributes
	}
	may := token.Permission{
		CanPublish:            p.Permission.CanPublish,
		CanSubscribe:          p.Permission.CanSubscribe,
		CanPublishData:        p.Permission.CanPublishData,
		CanUpdateOwnMetadata:  p.Permission.CanUpdateMetadata,
		CanSubscribeMetrics:   g.CanSubscribeMetrics,
		CanManageAgentSession: g.CanManageAgentSession,
		Hidden:                p.Permission.Hidden,
		Recorder:              p.Permission.Recorder,
		Agent:                 p.Permission.Agent,
	}
	for _, source := range p.Permission.CanPublishSources {
		may.CanPublishSources = append(may.CanPublishSources, sourceNames[source])
	}
	changed = changed || !samePermission(g.Permission, may)
	g.Permission = may
	return changed
}

// sourceNames are the words of tokens for sources of tracks.
var sourceNames = map[sfu.TrackSource]string{
	sfu.Camera: "camera", sfu.Microphone: "microphone",
	sfu.ScreenShare: "screen_share", sfu.ScreenShareAudio: "screen_share_audio",
}

func samePermission(a, b token.Permission) bool {
	return a.CanPublish == b.CanPublish && a.CanSubscribe == b.CanSubscribe && a.CanPublishData == b.CanPublishData &&
		a.CanUpdateOwnMetadata == b.CanUpdateOwnMetadata &&
		a.Hidden == b.Hidden && a.Recorder == b.Recorder && a.Agent == b.Agent &&
		slices.Equal(a.CanPublishSources, b.CanPublishSources)
}
