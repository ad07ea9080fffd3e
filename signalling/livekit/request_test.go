package livekit

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// wrap encodes a join request as clients do.
func wrap(t testing.TB, req *livekit.JoinRequest, how livekit.WrappedJoinRequest_Compression) string {
	t.Helper()
	body, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	if how == livekit.WrappedJoinRequest_GZIP {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(body)
		_ = w.Close()
		body = z.Bytes()
	}
	raw, err := proto.Marshal(&livekit.WrappedJoinRequest{Compression: how, JoinRequest: body})
	if err != nil {
		t.Fatal(err)
	}
	return base64.URLEncoding.EncodeToString(raw)
}

var sampleJoin = &livekit.JoinRequest{
	ClientInfo:         &livekit.ClientInfo{Sdk: livekit.ClientInfo_JS, Version: "2.23.0", Protocol: 17, Browser: "Chrome"},
	ConnectionSettings: &livekit.ConnectionSettings{AutoSubscribe: true, AdaptiveStream: true},
	PublisherOffer:     &livekit.SessionDescription{Type: "offer", Sdp: "v=0\r\n", Id: 1},
}

func TestParseHello(t *testing.T) {
	plain := wrap(t, sampleJoin, livekit.WrappedJoinRequest_NONE)
	zipped := wrap(t, sampleJoin, livekit.WrappedJoinRequest_GZIP)
	tests := []struct {
		name    string
		query   string
		v1      bool
		want    *livekit.JoinRequest
		single  bool
		failure string
	}{
		{"v1 plain", "join_request=" + plain, true, sampleJoin, true, ""},
		{"v1 gzip", "join_request=" + zipped, true, sampleJoin, true, ""},
		{"v1 without padding", "join_request=" + strings.TrimRight(zipped, "="), true, sampleJoin, true, ""},
		{"v0 with a join request", "join_request=" + plain, false, sampleJoin, true, ""},
		{"v1 without", "", true, nil, false, "join_request is required"},
		{"not base64", "join_request=!!", true, nil, true, "cannot base64 decode wrapped join request"},
		{"not protobuf", "join_request=AAAA", true, nil, true, "cannot unmarshal wrapped join request"},
		{"v0 defaults", "", false, &livekit.JoinRequest{
			ClientInfo:         &livekit.ClientInfo{},
			ConnectionSettings: &livekit.ConnectionSettings{AutoSubscribe: true},
		}, false, ""},
		{"v0 everything", "auto_subscribe=0&adaptive_stream=1&sdk=js&version=2.23.0&protocol=16&client_protocol=1&os=linux&browser=Firefox" +
			"&capabilities=CAP_PACKET_TRAILER,NO_SUCH&reconnect=true&sid=PA_1&reconnect_reason=2&subscriber_allow_pause=1&attributes=eyJhIjoiYiJ9", false,
			&livekit.JoinRequest{
				ClientInfo: &livekit.ClientInfo{
					Sdk: livekit.ClientInfo_JS, Version: "2.23.0", Protocol: 16, ClientProtocol: 1, Os: "linux", Browser: "Firefox",
					Capabilities: []livekit.ClientInfo_Capability{livekit.ClientInfo_CAP_PACKET_TRAILER},
				},
				ConnectionSettings:    &livekit.ConnectionSettings{AdaptiveStream: true, SubscriberAllowPause: proto.Bool(true)},
				ParticipantAttributes: map[string]string{"a": "b"},
				Reconnect:             true,
				ReconnectReason:       livekit.ReconnectReason_RR_PUBLISHER_FAILED,
				ParticipantSid:        "PA_1",
			}, false, ""},
		{"v0 bad attributes", "attributes=e30x", false, nil, false, "cannot decode attributes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, err := url.ParseQuery(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseHello(q, tt.v1)
			if tt.failure != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.failure) {
					t.Fatalf("got error %v, want %q", err, tt.failure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got.JoinRequest, protocmp.Transform()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if got.single != tt.single {
				t.Errorf("single = %v, want %v", got.single, tt.single)
			}
		})
	}
}

// A few kB of gzip can stand for gigabytes.
func TestJoinRequestBomb(t *testing.T) {
	bomb := wrap(t, &livekit.JoinRequest{Metadata: strings.Repeat("x", 4*maxJoinRequest)}, livekit.WrappedJoinRequest_GZIP)
	if len(bomb) > 64<<10 {
		t.Fatalf("bomb of %d bytes is none", len(bomb))
	}
	if _, err := decodeJoinRequest(bomb); !errors.Is(err, errJoinRequestTooLarge) {
		t.Errorf("got %v, want %v", err, errJoinRequestTooLarge)
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add("join_request="+wrap(f, sampleJoin, livekit.WrappedJoinRequest_NONE), true)
	f.Add("join_request="+wrap(f, sampleJoin, livekit.WrappedJoinRequest_GZIP), false)
	f.Add("auto_subscribe=1&sdk=go&protocol=16&attributes=eyJhIjoiYiJ9&capabilities=,&reconnect=1&sid=PA_x", false)
	f.Fuzz(func(t *testing.T, query string, v1 bool) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		h, err := parseHello(q, v1)
		if err == nil && h.JoinRequest == nil {
			t.Error("neither a request nor an error")
		}
	})
}
