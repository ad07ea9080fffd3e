package livekit

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"callserver/sfu"
	"callserver/signalling/token"
)

const (
	twirpPrefix  = "/twirp/livekit.RoomService/"
	maxTwirpBody = 10 << 20 // bytes
)

// A twirpError is the error form of the Twirp protocol, version 7.
type twirpError struct {
	status    int
	code, msg string
}

func (e *twirpError) Error() string { return e.code + ": " + e.msg }

var (
	errTwirpDenied    = &twirpError{http.StatusUnauthorized, "unauthenticated", "permissions denied"}
	errTwirpNoRoom    = &twirpError{http.StatusNotFound, "not_found", "requested room does not exist"}
	errTwirpNobody    = &twirpError{http.StatusNotFound, "not_found", "participant does not exist"}
	errTwirpNoTrack   = &twirpError{http.StatusNotFound, "not_found", "track is not found"}
	errTwirpMalformed = &twirpError{http.StatusBadRequest, "malformed", "the request could not be decoded"}
)

// An rpc decodes a request, checks the grant and acts.
type rpc func(rooms *sfu.Rooms, g token.Grant, decode func(proto.Message) error) (proto.Message, error)

// rpcs are the methods of the RoomService that exist here.
var rpcs = map[string]rpc{
	"CreateRoom":         method(createRoom),
	"ListRooms":          method(listRooms),
	"DeleteRoom":         method(deleteRoom),
	"GetParticipant":     method(getParticipant),
	"ListParticipants":   method(listParticipants),
	"RemoveParticipant":  method(removeParticipant),
	"MutePublishedTrack": method(mutePublishedTrack),
	"UpdateParticipant":  method(updateParticipant),
}

// method makes an rpc of a function over its own request type.
func method[T any, M interface {
	*T
	proto.Message
}](f func(*sfu.Rooms, token.Grant, M) (proto.Message, error)) rpc {
	return func(rooms *sfu.Rooms, g token.Grant, decode func(proto.Message) error) (proto.Message, error) {
		req := M(new(T))
		if err := decode(req); err != nil {
			return nil, errTwirpMalformed
		}
		return f(rooms, g, req)
	}
}

// serveTwirp answers one call of the RoomService, in the encoding that it came in.
func (e *Edge) serveTwirp(w http.ResponseWriter, r *http.Request, name string) {
	call, known := rpcs[name]
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	asJSON := kind == "application/json"
	switch {
	case !known:
		e.refuseTwirp(w, r, &twirpError{http.StatusNotFound, "bad_route", "no handler for path " + r.URL.Path})
		return
	case r.Method != http.MethodPost:
		e.refuseTwirp(w, r, &twirpError{http.StatusNotFound, "bad_route", "unsupported method " + r.Method})
		return
	case !asJSON && kind != "application/protobuf":
		e.refuseTwirp(w, r, &twirpError{http.StatusNotFound, "bad_route", "unexpected Content-Type"})
		return
	}
	grant, err := e.authenticate(r, nil)
	if err != nil || e.server.Revoked(grant) {
		e.refuseTwirp(w, r, errTwirpDenied)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTwirpBody))
	if err != nil {
		e.refuseTwirp(w, r, errTwirpMalformed)
		return
	}
	answer, err := call(e.server.Rooms(), grant, func(m proto.Message) error { return decodeBody(body, asJSON, m) })
	if err != nil {
		e.refuseTwirp(w, r, err)
		return
	}
	writeBody(w, answer, asJSON)
}

func decodeBody(body []byte, asJSON bool, m proto.Message) error {
	if asJSON {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, m)
	}
	return proto.Unmarshal(body, m)
}

// writeBody sends an answer; in JSON with snake_case names and all fields, as Twirp does.
func writeBody(w http.ResponseWriter, m proto.Message, asJSON bool) {
	kind, body, err := "application/protobuf", []byte(nil), error(nil)
	if asJSON {
		kind = "application/json"
		body, err = protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	} else {
		body, err = proto.Marshal(m)
	}
	if err != nil {
		http.Error(w, "cannot encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body)
}

func (e *Edge) refuseTwirp(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *twirpError
	if !errors.As(err, &refusal) {
		refusal = &twirpError{http.StatusInternalServerError, "internal", "Something went wrong on the server"}
		e.log.Error("room service", "path", r.URL.Path, "err", err)
	}
	e.counts.refused.Add(1)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(refusal.status)
	body := strings.NewReplacer("\\", "\\\\", "\"", "\\\"").Replace(refusal.msg)
	_, _ = io.WriteString(w, `{"code":"`+refusal.code+`","msg":"`+body+`"}`)
}

// moderatesFor is how long a moderator's token lets act upon others, from when the power in the Matrix room was read. After
// that the moderator asks the authoriser for another token, and who has lost the power gets one without the right.
const moderatesFor = 10 * time.Minute

// administers reports whether a token may act upon others in the room: an operator's, or a moderator's own.
func administers(g token.Grant, room string) bool {
	return g.RoomAdmin && g.Room == room && room != "" && (!moderator(g) || time.Since(g.Origin.Verified) < moderatesFor)
}

// moderator reports whether the token is a person's own, from our authoriser. Such a person mutes and removes others and
// ends the call, but changes nothing that tokens say of them: that would be more than the authoriser gives to anybody.
func moderator(g token.Grant) bool { return g.Origin.User != "" }

func createRoom(rooms *sfu.Rooms, g token.Grant, r *livekit.CreateRoomRequest) (proto.Message, error) {
	switch {
	case !g.RoomCreate:
		return nil, errTwirpDenied
	case r.GetName() == "" || len(r.GetName()) > maxIdentity:
		return nil, &twirpError{http.StatusBadRequest, "invalid_argument", "room name must have 1 to 256 bytes"}
	case len(r.GetMetadata()) > maxMetadata:
		return nil, &twirpError{http.StatusBadRequest, "invalid_argument", "metadata exceeds 512 kB"}
	}
	return room(rooms.Create(sfu.RoomID(r.GetName()), sfu.RoomOptions{
		EmptyTimeout:     time.Duration(r.GetEmptyTimeout()) * time.Second,
		DepartureTimeout: time.Duration(r.GetDepartureTimeout()) * time.Second,
		MaxParticipants:  int(r.GetMaxParticipants()),
		Metadata:         r.GetMetadata(),
	}, time.Now())), nil
}

func listRooms(rooms *sfu.Rooms, g token.Grant, r *livekit.ListRoomsRequest) (proto.Message, error) {
	if !g.RoomList {
		return nil, errTwirpDenied
	}
	wanted := map[string]bool{}
	for _, name := range r.GetNames() {
		wanted[name] = true
	}
	out := &livekit.ListRoomsResponse{}
	for _, info := range rooms.List() {
		if len(wanted) == 0 || wanted[string(info.Name)] {
			out.Rooms = append(out.Rooms, room(info))
		}
	}
	return out, nil
}

func deleteRoom(rooms *sfu.Rooms, g token.Grant, r *livekit.DeleteRoomRequest) (proto.Message, error) {
	if ends := moderator(g) && administers(g, r.GetRoom()); !g.RoomCreate && !ends {
		return nil, errTwirpDenied
	}
	if rooms.Delete(sfu.RoomID(r.GetRoom()), time.Now()) != nil {
		return nil, errTwirpNoRoom
	}
	return &livekit.DeleteRoomResponse{}, nil
}

func getParticipant(rooms *sfu.Rooms, g token.Grant, r *livekit.RoomParticipantIdentity) (proto.Message, error) {
	if !administers(g, r.GetRoom()) {
		return nil, errTwirpDenied
	}
	p := rooms.Participant(sfu.RoomID(r.GetRoom()), sfu.Identity(r.GetIdentity()))
	if p == nil {
		return nil, errTwirpNobody
	}
	info := p.Info()
	return participant(&info), nil
}

func listParticipants(rooms *sfu.Rooms, g token.Grant, r *livekit.ListParticipantsRequest) (proto.Message, error) {
	if !administers(g, r.GetRoom()) {
		return nil, errTwirpDenied
	}
	_, list, ok := rooms.Room(sfu.RoomID(r.GetRoom()))
	if !ok {
		return nil, errTwirpNoRoom
	}
	return &livekit.ListParticipantsResponse{Participants: participants(list)}, nil
}

func removeParticipant(rooms *sfu.Rooms, g token.Grant, r *livekit.RoomParticipantIdentity) (proto.Message, error) {
	if !administers(g, r.GetRoom()) {
		return nil, errTwirpDenied
	}
	if rooms.Remove(sfu.RoomID(r.GetRoom()), sfu.Identity(r.GetIdentity()), sfu.ParticipantRemoved, time.Now()) != nil {
		return nil, errTwirpNobody
	}
	return &livekit.RemoveParticipantResponse{}, nil
}

func mutePublishedTrack(rooms *sfu.Rooms, g token.Grant, r *livekit.MuteRoomTrackRequest) (proto.Message, error) {
	if !administers(g, r.GetRoom()) {
		return nil, errTwirpDenied
	}
	info, err := rooms.MuteTrack(sfu.RoomID(r.GetRoom()), sfu.Identity(r.GetIdentity()), sfu.SID(r.GetTrackSid()), r.GetMuted(), time.Now())
	switch {
	case errors.Is(err, sfu.ErrNotAllowed):
		return nil, &twirpError{http.StatusBadRequest, "failed_precondition", "remote unmute not enabled"}
	case err != nil:
		return nil, errTwirpNoTrack
	}
	return &livekit.MuteRoomTrackResponse{Track: track(info)}, nil
}

func updateParticipant(rooms *sfu.Rooms, g token.Grant, r *livekit.UpdateParticipantRequest) (proto.Message, error) {
	if !administers(g, r.GetRoom()) || moderator(g) {
		return nil, errTwirpDenied
	}
	id, who, now := sfu.RoomID(r.GetRoom()), sfu.Identity(r.GetIdentity()), time.Now()
	p := rooms.Participant(id, who)
	if p == nil {
		return nil, errTwirpNobody
	}
	var name, metadata *string // an empty one means unchanged
	if r.Name != "" {
		name = &r.Name
	}
	if r.Metadata != "" {
		metadata = &r.Metadata
	}
	err := rooms.UpdateParticipant(id, who, name, metadata, r.GetAttributes(), now)
	if err == nil && r.GetPermission() != nil {
		err = p.SetPermission(permitted(r.GetPermission()), now)
	}
	switch {
	case errors.Is(err, sfu.ErrLimit):
		return nil, &twirpError{http.StatusBadRequest, "invalid_argument", "name, metadata or attributes are too long"}
	case err != nil:
		return nil, errTwirpNobody
	}
	info := p.Info()
	return participant(&info), nil
}
