package matrixrtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"callserver/signalling/matrixrtc/member"
)

// maxField is the longest value of a request, in bytes. Matrix ids end at 255; OpenID tokens are opaque.
const maxField = 2048

// openIDToken is what /openid/request_token gave the client. expires_in is left out: servers disagree on its meaning.
type openIDToken struct {
	AccessToken string `json:"access_token"`
	ServerName  string `json:"matrix_server_name"`
}

// delegation is present in requests of clients that want us to send their leave. The base URL that they name does not
// matter: the homeserver is asked where the operator said that it is.
type delegation struct {
	ID      json.RawMessage `json:"delay_id"`
	Timeout json.RawMessage `json:"delay_timeout"` // ms
	API     json.RawMessage `json:"delay_cs_api_url"`
}

// read returns the delay id and the delay, or zeros if no delegation is asked for.
func (d delegation) read() (delay string, length time.Duration, err error) {
	if !present(d.ID) && !present(d.Timeout) && !present(d.API) {
		return "", 0, nil
	}
	var ms float64
	if delay, err = d.id(); err != nil {
		return "", 0, err
	}
	if json.Unmarshal(d.Timeout, &ms) != nil || ms < 1 {
		return "", 0, badJSON("delay_timeout is missing or no number of milliseconds")
	}
	return delay, time.Duration(min(ms, maxDelay)) * time.Millisecond, nil
}

func (d delegation) id() (delay string, err error) {
	if json.Unmarshal(d.ID, &delay) != nil || delay == "" || len(delay) > maxField {
		return "", badJSON("delay_id is missing or no string")
	}
	return delay, nil
}

const maxDelay = 24 * 60 * 60 * 1000 // ms

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

// hosted is the body of the endpoints that are the homeserver's by their path. The text of MSC4195 has member_id; before
// the summer of 2026 there was a member in its place.
type hosted struct {
	Server   string `json:"server_name"` // whose media server; empty means the caller's own
	URL      string `json:"url"`         // of the media server
	RoomID   string `json:"room_id"`
	SlotID   string `json:"slot_id"`
	MemberID string `json:"member_id"`
	UserID   string `json:"user_id"` // between homeservers only
	Member   struct {
		ID       string `json:"id"`
		DeviceID string `json:"claimed_device_id"`
	} `json:"member"`
	delegation
}

// A generation is one of the three contracts between clients and authorisers that are in use.
type generation uint8

const (
	byDevice generation = iota + 1 // /sfu/get: the participant is user and device
	byMember                       // /get_token: the hash of user, device and member
	unlinked                       // the homeserver's endpoints: the hash of user and member
)

// A request is what the endpoints ask for, in common terms.
type request struct {
	generation  generation
	room        string // Matrix room id
	slot        string
	device      string // claimed: nothing proves it; empty where clients do not say
	member      string // empty on /sfu/get
	claimedUser string // empty on /sfu/get and from clients to their homeserver
	openID      openIDToken

	addr  netip.Addr // of the client
	proof proof      // zero until somebody answered for the user

	target string // whose media server a client asks its homeserver for; empty means ours
	url    string // of the media server, there
	body   []byte // as it came: it may be signed

	delay  string        // id of the leave that the client wants to delegate; empty if it does not
	length time.Duration // of its delay
}

// identity is the participant identity of a verified user, in the form the endpoint's clients expect.
func (r *request) identity(user string) string {
	switch r.generation {
	case byDevice:
		return member.DeviceIdentity(user, r.device)
	case unlinked:
		return member.UnlinkedIdentity(user, r.member)
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
	err := check(
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
	delay, length, err := b.read()
	return &request{
		generation: byDevice, room: b.Room, slot: member.SlotRoom, device: b.DeviceID,
		openID: b.Token, delay: delay, length: length,
	}, err
}

func parseGetToken(body []byte) (*request, error) {
	var b getToken
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	err := check(
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
	delay, length, err := b.read()
	return &request{
		generation: byMember, room: b.RoomID, slot: b.SlotID,
		device: b.Member.DeviceID, member: b.Member.ID, claimedUser: b.Member.UserID,
		openID: b.Token, delay: delay, length: length,
	}, err
}

// parseHosted reads a token request to the homeserver.
func parseHosted(body []byte) (*request, error) {
	b, err := readHosted(body)
	if err != nil {
		return nil, err
	}
	return b.request(), nil
}

// parseHostedDelegation reads a delegation to the homeserver. The length of the delay may be missing: it is looked up.
func parseHostedDelegation(body []byte) (*request, error) {
	b, err := readHosted(body)
	if err != nil {
		return nil, err
	}
	q := b.request()
	if present(b.Timeout) {
		q.delay, q.length, err = b.read()
	} else {
		q.delay, err = b.id()
	}
	return q, err
}

// parseFederated reads a token request of another homeserver for one of its users.
func parseFederated(body []byte) (*request, error) {
	b, err := readHosted(body)
	if err != nil {
		return nil, err
	}
	q := b.request()
	q.claimedUser, q.target = b.UserID, ""
	return q, check(field{"user_id", b.UserID})
}

func readHosted(body []byte) (*hosted, error) {
	b := &hosted{}
	if err := decode(body, b); err != nil {
		return nil, err
	}
	if b.MemberID == "" {
		b.MemberID = b.Member.ID
	}
	for _, optional := range []field{{"server_name", b.Server}, {"member.claimed_device_id", b.Member.DeviceID}} {
		if len(optional.value) > maxField {
			return nil, badJSON("%s is too long", optional.name)
		}
	}
	return b, check(field{"url", b.URL}, field{"room_id", b.RoomID}, field{"slot_id", b.SlotID}, field{"member_id", b.MemberID})
}

func (b *hosted) request() *request {
	return &request{
		generation: unlinked, room: b.RoomID, slot: b.SlotID, device: b.Member.DeviceID, member: b.MemberID,
		target: b.Server, url: b.URL,
	}
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

func check(fields ...field) error {
	for _, f := range fields {
		if f.value == "" {
			return badJSON("%s is missing", f.name)
		}
		if len(f.value) > maxField {
			return badJSON("%s is too long", f.name)
		}
	}
	return nil
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

func badJSON(format string, args ...any) error {
	return &refusal{status: http.StatusBadRequest, code: "M_BAD_JSON", text: fmt.Sprintf(format, args...)}
}
