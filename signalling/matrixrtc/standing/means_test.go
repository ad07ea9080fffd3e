package standing

import (
	"slices"
	"testing"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// The means in the order of preference: each sees in its own situation, and where none does, the user is refused.
func TestMeans(t *testing.T) {
	for _, tc := range []struct {
		name          string
		registrations []*homeserver.Registration
		query         bool
		members       map[string]string
		user          string
		witnesses     []id.UserID
		want          Standing
		looked        []string
	}{
		{"MSC4502", []*homeserver.Registration{wide()}, true, map[string]string{alice: "join"}, alice, nil, Joined, []string{"MSC4502"}},
		{"MSC4502: not joined", []*homeserver.Registration{wide()}, true, map[string]string{alice: "invite"}, alice, nil, Outside, []string{"MSC4502"}},
		{"MSC4502 of a remote user", []*homeserver.Registration{narrow()}, true, map[string]string{rob: "join"}, rob, nil, Joined, []string{"MSC4502"}},
		{"own eyes", []*homeserver.Registration{wide()}, false, map[string]string{alice: "join"}, alice, nil, Joined, []string{"MSC4502", alice}},
		{"own eyes: invited", []*homeserver.Registration{wide()}, false, map[string]string{alice: "invite"}, alice, nil, Outside, []string{"MSC4502", alice}},
		{"own eyes: banned", []*homeserver.Registration{wide()}, false, map[string]string{alice: "ban"}, alice, nil, Outside, []string{"MSC4502", alice}},
		{"own eyes: a stranger", []*homeserver.Registration{wide()}, false, nil, alice, nil, Outside, []string{"MSC4502", alice}},
		{"the sender", []*homeserver.Registration{narrow()}, false, map[string]string{sender: "join", alice: "join"}, alice, nil, Joined, []string{"MSC4502", sender, sender}},
		{"the sender: left", []*homeserver.Registration{narrow()}, false, map[string]string{sender: "join", alice: "leave"}, alice, nil, Outside, []string{"MSC4502", sender, sender}},
		{"the sender: never there", []*homeserver.Registration{narrow()}, false, map[string]string{sender: "join"}, alice, nil, Outside, []string{"MSC4502", sender, sender}},
		{"the sender of a remote user", []*homeserver.Registration{narrow(), wide()}, false, map[string]string{sender: "join", rob: "join"}, rob, nil, Joined, []string{"MSC4502", sender, sender}},
		{"the sender is not there", []*homeserver.Registration{narrow()}, false, map[string]string{alice: "join"}, alice, nil, Unknown, []string{"MSC4502", sender}},
		{"a witness", []*homeserver.Registration{wide()}, false, map[string]string{bob: "join", rob: "join"}, rob, []id.UserID{bob}, Joined, []string{"MSC4502", bob, bob}},
		{"a witness: not joined", []*homeserver.Registration{wide()}, false, map[string]string{bob: "join"}, rob, []id.UserID{bob}, Outside, []string{"MSC4502", bob, bob}},
		{"a sender who was kicked sees how it was", []*homeserver.Registration{narrow()}, false, map[string]string{sender: "was here", alice: "join"}, alice, nil, Unknown, []string{"MSC4502", sender}},
		{"a witness who left", []*homeserver.Registration{wide()}, false, map[string]string{rob: "join"}, rob, []id.UserID{bob}, Unknown, []string{"MSC4502", bob}},
		{"too many witnesses", []*homeserver.Registration{wide()}, false, nil, rob, []id.UserID{bob, bob, bob, bob, bob}, Unknown, []string{"MSC4502", bob, bob, bob}},
		{"no means for a remote user", []*homeserver.Registration{wide()}, false, map[string]string{rob: "join"}, rob, nil, Unknown, []string{"MSC4502"}},
		{"no registration", nil, true, map[string]string{alice: "join"}, alice, []id.UserID{bob}, Unknown, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMatrix(tc.members)
			m.query = tc.query
			ms := New(Options{Connections: []*homeserver.Homeserver{connect(t, m, tc.registrations...)}})
			got, err := ms.ask(t.Context(), Place{id.UserID(tc.user), room}, tc.witnesses)
			if got.Standing != tc.want || err != nil {
				t.Errorf("%s is %+v (%v), want %v", tc.user, got, err, tc.want)
			}
			if looked := m.looked(); !slices.Equal(looked, tc.looked) {
				t.Errorf("looked as %q, want %q", looked, tc.looked)
			}
		})
	}
}
