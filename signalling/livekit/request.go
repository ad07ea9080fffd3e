package livekit

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
)

// maxJoinRequest bounds a join request in bytes, after decompression too.
const maxJoinRequest = 1 << 20

// What is wrong with a join request; the texts are the HTTP answer.
var (
	errJoinRequestMissing  = errors.New("join_request is required")
	errJoinRequestTooLarge = errors.New("join request too large")
)

// hello is what a client says of itself in the URL, in the form of /rtc/v1 whichever way it came.
type hello struct {
	*livekit.JoinRequest
	single    bool   // one peer connection, the client offers; otherwise two
	companion string // query parameter publish: a publish-only session beside the main one
}

// parseHello reads the query of a join, a resume or a validation. v1 says whether the path was /rtc/v1, where
// join_request is a must; on /rtc its presence asks for one peer connection as well.
func parseHello(q url.Values, v1 bool) (hello, error) {
	wrapped := q.Get("join_request")
	switch {
	case wrapped != "":
		req, err := decodeJoinRequest(wrapped)
		return hello{JoinRequest: req, single: true}, err
	case v1:
		return hello{}, errJoinRequestMissing
	}
	return parseQuery(q)
}

// decodeJoinRequest undoes URL-safe base64 (padded or not), the WrappedJoinRequest and its compression.
func decodeJoinRequest(s string) (*livekit.JoinRequest, error) {
	if base64.RawURLEncoding.DecodedLen(len(s)) > maxJoinRequest {
		return nil, errJoinRequestTooLarge
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, fmt.Errorf("cannot base64 decode wrapped join request: %w", err)
	}
	var wrapped livekit.WrappedJoinRequest
	if err := proto.Unmarshal(raw, &wrapped); err != nil {
		return nil, errors.New("cannot unmarshal wrapped join request")
	}
	body := wrapped.JoinRequest
	if wrapped.Compression == livekit.WrappedJoinRequest_GZIP {
		if body, err = gunzip(body); err != nil {
			return nil, err
		}
	}
	req := &livekit.JoinRequest{}
	if err := proto.Unmarshal(body, req); err != nil {
		return nil, errors.New("cannot unmarshal join request")
	}
	return req, nil
}

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("cannot read decompressed join request: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, maxJoinRequest+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read decompressed join request: %w", err)
	case len(out) > maxJoinRequest:
		return nil, errJoinRequestTooLarge
	}
	return out, nil
}

// parseQuery reads the plain query parameters of /rtc.
func parseQuery(q url.Values) (hello, error) {
	attributes, err := parseAttributes(q.Get("attributes"))
	if err != nil {
		return hello{}, err
	}
	settings := &livekit.ConnectionSettings{
		AutoSubscribe:  !q.Has("auto_subscribe") || q.Get("auto_subscribe") == "" || isTrue(q.Get("auto_subscribe")),
		AdaptiveStream: isTrue(q.Get("adaptive_stream")),
		DisableIceLite: isTrue(q.Get("disable_ice_lite")),
	}
	if s := q.Get("subscriber_allow_pause"); s != "" {
		settings.SubscriberAllowPause = proto.Bool(isTrue(s))
	}
	if s := q.Get("auto_subscribe_data_track"); s != "" {
		settings.AutoSubscribeDataTrack = proto.Bool(isTrue(s))
	}
	return hello{
		JoinRequest: &livekit.JoinRequest{
			ClientInfo:            parseClientInfo(q),
			ConnectionSettings:    settings,
			ParticipantAttributes: attributes,
			Reconnect:             isTrue(q.Get("reconnect")),
			ReconnectReason:       livekit.ReconnectReason(atoi32(q.Get("reconnect_reason"))),
			ParticipantSid:        q.Get("sid"),
		},
		companion: q.Get("publish"),
	}, nil
}

func parseClientInfo(q url.Values) *livekit.ClientInfo {
	info := &livekit.ClientInfo{
		Version:        q.Get("version"),
		Protocol:       atoi32(q.Get("protocol")),
		ClientProtocol: atoi32(q.Get("client_protocol")),
		Os:             q.Get("os"),
		OsVersion:      q.Get("os_version"),
		Browser:        q.Get("browser"),
		BrowserVersion: q.Get("browser_version"),
		DeviceModel:    q.Get("device_model"),
		Network:        q.Get("network"),
		Sdk:            parseSDK(q.Get("sdk")),
	}
	for name := range strings.SplitSeq(q.Get("capabilities"), ",") {
		if c, ok := livekit.ClientInfo_Capability_value[strings.ToUpper(strings.TrimSpace(name))]; ok && c != 0 {
			info.Capabilities = append(info.Capabilities, livekit.ClientInfo_Capability(c))
		}
	}
	return info
}

// parseSDK maps the spellings that SDKs put in the query to the enumeration.
func parseSDK(s string) livekit.ClientInfo_SDK {
	switch s {
	case "ios":
		return livekit.ClientInfo_SWIFT
	case "reactnative":
		return livekit.ClientInfo_REACT_NATIVE
	case "unityweb":
		return livekit.ClientInfo_UNITY_WEB
	}
	return livekit.ClientInfo_SDK(livekit.ClientInfo_SDK_value[strings.ToUpper(s)])
}

func parseAttributes(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, errors.New("cannot decode attributes")
	}
	var attributes map[string]string
	if err := json.Unmarshal(raw, &attributes); err != nil {
		return nil, errors.New("cannot decode attributes")
	}
	return attributes, nil
}

func isTrue(s string) bool { return s == "1" || s == "true" }

func atoi32(s string) int32 {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}
