package token

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
)

// Tokens of LiveKit's own SDK verify here.
func TestTheirsVerifyHere(t *testing.T) {
	video := &auth.VideoGrant{
		RoomJoin: true, Room: "room", RoomAdmin: true, RoomRecord: true, DestinationRoom: "other", Hidden: true,
		CanPublishSources: []string{"camera", "screen_share_audio"},
	}
	video.SetCanPublish(true)
	video.SetCanSubscribe(false)
	video.SetCanPublishData(false)
	video.SetCanUpdateOwnMetadata(true)
	video.SetCanSubscribeMetrics(true)
	raw, err := auth.NewAccessToken("devkey", "secret").
		SetIdentity("@alice:example.org:DEV").SetName("Alice").SetMetadata("meta").SetKind(livekit.ParticipantInfo_AGENT).
		SetAttributes(map[string]string{"k": "v"}).SetVideoGrant(video).SetSha256("sum").
		SetRoomConfig(&livekit.RoomConfiguration{EmptyTimeout: 5}).
		SetValidFor(time.Hour).ToJWT()
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	got, err := keys.Verify(raw, clock)
	if err != nil {
		t.Fatal(err)
	}
	want := Grant{
		Identity: "@alice:example.org:DEV", Name: "Alice", Metadata: "meta", Kind: "agent", SHA256: "sum",
		Attributes: map[string]string{"k": "v"},
		Room:       "room", DestinationRoom: "other", RoomJoin: true, RoomAdmin: true, RoomRecord: true,
		Permission: Permission{
			CanPublish: true, CanUpdateOwnMetadata: true, CanSubscribeMetrics: true, Hidden: true,
			CanPublishSources: []string{"camera", "screen_share_audio"},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreTypes(Validity{}), cmpopts.IgnoreFields(Grant{}, "RoomConfig")); d != "" {
		t.Errorf("(-theirs +ours):\n%s", d)
	}
	var config auth.RoomConfiguration
	if err := config.UnmarshalJSON(got.RoomConfig); err != nil || config.EmptyTimeout != 5 {
		t.Errorf("room configuration %s reads as %d s (%v), want 5", got.RoomConfig, config.EmptyTimeout, err)
	}
	if got.Key != "devkey" || got.Expires.Sub(clock).Round(time.Minute) != time.Hour {
		t.Errorf("issued by %q until %s", got.Key, got.Expires)
	}
}

// Tokens of ours verify with LiveKit's own SDK.
func TestOursVerifyThere(t *testing.T) {
	for name, g := range map[string]Grant{"everything": everything, "participant": Join("room", "alice"), "nothing": {Identity: "x"}} {
		t.Run(name, func(t *testing.T) {
			raw, err := keys.Mint("devkey", g, time.Hour, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			verifier, err := auth.ParseAPIToken(raw)
			if err != nil {
				t.Fatal(err)
			}
			_, claims, err := verifier.Verify("secret")
			if err != nil {
				t.Fatal(err)
			}
			v := claims.Video
			got := Grant{
				Identity: claims.Identity, Name: claims.Name, Metadata: claims.Metadata, Kind: claims.Kind,
				KindDetails: claims.KindDetails, Attributes: claims.Attributes, SHA256: claims.Sha256,
				Room: v.Room, DestinationRoom: v.DestinationRoom, RoomJoin: v.RoomJoin, RoomAdmin: v.RoomAdmin,
				RoomCreate: v.RoomCreate, RoomList: v.RoomList, RoomRecord: v.RoomRecord, IngressAdmin: v.IngressAdmin,
				FullAccess: g.FullAccess, RoomConfig: g.RoomConfig, // not theirs to know; checked above
				Permission: Permission{
					CanPublish: v.GetCanPublish(), CanSubscribe: v.GetCanSubscribe(), CanPublishData: v.GetCanPublishData(),
					CanUpdateOwnMetadata: v.GetCanUpdateOwnMetadata(), CanSubscribeMetrics: v.GetCanSubscribeMetrics(),
					CanManageAgentSession: v.CanManageAgentSession != nil && *v.CanManageAgentSession,
					CanPublishSources:     v.CanPublishSources, Hidden: v.Hidden, Recorder: v.Recorder, Agent: v.Agent,
				},
			}
			if d := cmp.Diff(g, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-ours +theirs):\n%s", d)
			}
		})
	}
}
