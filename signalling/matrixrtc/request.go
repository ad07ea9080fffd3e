package matrixrtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"callserver/signalling/matrixrtc/member"
)

// maxField is the longest value of a request, in bytes. Matrix ids end at 255; OpenID tokens are opaque.
const maxField = 2048

// openIDToken is what /openid/request_token gave the client. expires_in is left out: servers disagree on its meaning.
type openIDToken struct {
	AccessToken string `json:"access_token"`
	ServerName  string `json:"matrix_server_name"`
}

// delegation is present in requests of clients that want us to send their leave. Its content does not matter here.
type delegation struct {
	ID      json.RawMessage `json:"delay_id"`
	Timeout json.RawMessage `json:"delay_timeout"`
	API     json.RawMessage `json:"delay_cs_api_url"`
}

// sfuGet is the body of POST /sfu/get.
type sfuGet struct {
	Room     string      `json:"room"`
	DeviceID string      `json:"device_id"`
	Token    openIDToken `json:"openid_token"`
	delegation
}

// getToken is the body of POST /get_token.
type getToken struct {
	RoomID string      `json:"room_id"`
	SlotID string      `json:"slot_id"`
	Token  openIDToken `json:"openid_token"`
	Member struct {
		ID       string `json:"id"`
		UserID   string `json:"claimed_user_id"`
		DeviceID string `json:"claimed_device_id"`
	} `json:"member"`
	delegation
}

// A request is what the two endpoints ask for, in common terms.
type request struct {
	room        string // Matrix room id
	slot        string
	device      string // claimed: nothing proves it
	member      string // empty on /sfu/get
	claimedUser string // empty on /sfu/get
	openID      openIDToken
}

// identity is the participant identity of a verified user, in the form the endpoint's clients expect.
func (r *request) identity(user string) string {
	if r.member == "" {
		return member.DeviceIdentity(user, r.device)
	}
	return member.MemberIdentity(user, r.device, r.member)
}

// field names a required value in an error.
type field struct{ name, value string }

func parseSFUGet(body []byte) (*request, error) {
	var b sfuGet
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	err := check(b.delegation,
		field{"room", b.Room},
		field{"device_id", b.DeviceID},
		field{"openid_token.access_token", b.Token.AccessToken},
		field{"openid_token.matrix_server_name", b.Token.ServerName})
	if err != nil {
		return nil, err
	}
	if looksLikePort(b.Token.ServerName, b.DeviceID) {
		return nil, badJSON("device_id must not begin with a port number")
	}
	return &request{room: b.Room, slot: member.SlotRoom, device: b.DeviceID, openID: b.Token}, nil
}

func parseGetToken(body []byte) (*request, error) {
	var b getToken
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	err := check(b.delegation,
		field{"room_id", b.RoomID},
		field{"slot_id", b.SlotID},
		field{"member.id", b.Member.ID},
		field{"member.claimed_user_id", b.Member.UserID},
		field{"member.claimed_device_id", b.Member.DeviceID},
		field{"openid_token.access_token", b.Token.AccessToken},
		field{"openid_token.matrix_server_name", b.Token.ServerName})
	if err != nil {
		return nil, err
	}
	return &request{
		room: b.RoomID, slot: b.SlotID,
		device: b.Member.DeviceID, member: b.Member.ID, claimedUser: b.Member.UserID,
		openID: b.Token,
	}, nil
}

// looksLikePort reports whether user:device would read as a device of another server: device "8448:X" of @a:example.org
// has the identity of device "X" of @a:example.org:8448.
func looksLikePort(server, device string) bool {
	port, _, ok := strings.Cut(device, ":")
	digits := port != "" && strings.Trim(port, "0123456789") == ""
	withoutPort := !strings.Contains(server, ":") || strings.HasSuffix(server, "]")
	return ok && digits && withoutPort
}

// decode is liberal: unknown fields are fine, as clients are newer than servers.
func decode(body []byte, into any) error {
	err := json.Unmarshal(body, into)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return &refusal{status: http.StatusBadRequest, code: "M_NOT_JSON", text: "The body is not JSON", err: err}
	default:
		return &refusal{status: http.StatusBadRequest, code: "M_BAD_JSON", text: "A value in the body is of the wrong type", err: err}
	}
}

func check(d delegation, fields ...field) error {
	for _, f := range fields {
		if f.value == "" {
			return badJSON("%s is missing", f.name)
		}
		if len(f.value) > maxField {
			return badJSON("%s is too long", f.name)
		}
	}
	if present(d.ID) || present(d.Timeout) || present(d.API) {
		return badJSON("This server does not take over delayed leaves: leave out the delay fields")
	}
	return nil
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

func badJSON(format string, args ...any) error {
	return &refusal{status: http.StatusBadRequest, code: "M_BAD_JSON", text: fmt.Sprintf(format, args...)}
}
