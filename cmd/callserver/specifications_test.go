package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestSpecificationsAreComplete: docs/specifications.md says something about every message of the client protocol and
// every method of the RoomService that the protocol knows.
func TestSpecificationsAreComplete(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "docs", "specifications.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`([A-Za-z_]+)`").FindAllSubmatch(text, -1) {
		named[string(name[1])] = true
	}
	for _, m := range []protoreflect.MessageDescriptor{
		(&livekit.SignalRequest{}).ProtoReflect().Descriptor(),
		(&livekit.SignalResponse{}).ProtoReflect().Descriptor(),
	} {
		for i := range m.Oneofs().Len() {
			fields := m.Oneofs().Get(i).Fields()
			for j := range fields.Len() {
				if name := string(fields.Get(j).Name()); !named[name] {
					t.Errorf("%s.%s is not mentioned", m.Name(), name)
				}
			}
		}
	}
	services := livekit.File_livekit_room_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			if name := string(methods.Get(j).Name()); !named[name] {
				t.Errorf("%s.%s is not mentioned", services.Get(i).Name(), name)
			}
		}
	}
}
