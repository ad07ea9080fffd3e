// Package realserver describes, to a test, the real homeserver that the testbed has started for it.
// It owns reading the description and connecting by the registrations that it names.
// It never starts a homeserver, and skips a test that was given none.
package realserver

import (
	"encoding/json"
	"os"
	"testing"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// A World is a homeserver that testbed/homeservers/connection.mjs started: alice and bob are in both rooms, carol in none.
type World struct {
	ServerName    string
	ClientAPI     string
	Listen        string // where the narrow registration's url leads
	Registrations struct{ Narrow, Wide string }
	DelayedEvents bool
	MemberQuery   bool // MSC4502
	Users         []struct {
		ID     id.UserID
		Device id.DeviceID
		Token  string
	}
	Rooms []id.RoomID
}

// Read returns the world that was started, or skips the test.
func Read(t *testing.T) *World {
	t.Helper()
	name := os.Getenv("CALLSERVER_TEST_HOMESERVER")
	if name == "" {
		t.Skip("needs a real homeserver: node --test testbed/homeservers/connection.mjs starts them and runs this")
	}
	w := &World{}
	if err := json.Unmarshal(read(t, name), w); err != nil {
		t.Fatal(err)
	}
	return w
}

// Connect makes a connection by some of the registrations, which ends with the test.
func (w *World) Connect(t *testing.T, registrations ...string) *homeserver.Homeserver {
	t.Helper()
	o := homeserver.Options{ServerName: w.ServerName, ClientAPI: w.ClientAPI}
	for _, file := range registrations {
		r, err := homeserver.ParseRegistration(read(t, file))
		if err != nil {
			t.Fatal(err)
		}
		o.Registrations = append(o.Registrations, r)
	}
	h, err := homeserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// ConnectAll makes a connection by both registrations.
func (w *World) ConnectAll(t *testing.T) *homeserver.Homeserver {
	t.Helper()
	return w.Connect(t, w.Registrations.Narrow, w.Registrations.Wide)
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
