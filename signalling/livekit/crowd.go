package livekit

import (
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"callserver/sfu"
)

// In a crowd everybody is told of everybody. A participant is therefore encoded once for all who are told, and messages are put together from that: in
// protobuf a message that is a field of another is its bytes behind the number of the field, wherever among the fields.

// The fields that list participants.
var (
	othersOfJoin         = fieldOf(&livekit.JoinResponse{}, "other_participants")
	participantsOfUpdate = fieldOf(&livekit.ParticipantUpdate{}, "participants")
)

func fieldOf(m proto.Message, name protoreflect.Name) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// list adds participants to a field of m, which has them as bytes from then on: encoding m writes them, looking at m does not show them.
func list(m proto.Message, field protowire.Number, people ...*sfu.ParticipantInfo) {
	size := 0
	for _, p := range people {
		size += protowire.SizeTag(field) + protowire.SizeBytes(len(p.Encoded(encoded)))
	}
	b := make([]byte, 0, size)
	for _, p := range people {
		b = protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), p.Encoded(encoded))
	}
	m.ProtoReflect().SetUnknown(b)
}

// encoded is a participant in the protocol.
func encoded(p *sfu.ParticipantInfo) []byte {
	b, _ := proto.Marshal(participant(p)) // fails for text that is no UTF-8: ours came by JSON and protobuf, which have no other
	return b
}

// whole is a message all of whose fields show: those that were added as bytes, too.
func whole(m *livekit.SignalResponse) (*livekit.SignalResponse, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	out := &livekit.SignalResponse{}
	return out, proto.Unmarshal(b, out)
}
