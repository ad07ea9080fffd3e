package homeserver

import (
	"net/http"
	"strings"
	"testing"
)

// A name in one room leaves the rest of the membership as it is, is taken back for the one of the profile, and is not written twice.
func TestRename(t *testing.T) {
	for _, tc := range []struct{ test, member, name, profile, want string }{
		{"a name", `{"membership":"join","displayname":"Calls","avatar_url":"mxc://a/b","x":1}`, "Bob (via callserver)", "", `{"avatar_url":"mxc://a/b","displayname":"Bob (via callserver)","membership":"join","x":1}`},
		{"the same", `{"membership":"join","displayname":"Bob"}`, "Bob", "", ""},
		{"as everywhere", `{"membership":"join","displayname":"Bob"}`, "", `{"displayname":"Calls"}`, `{"displayname":"Calls","membership":"join"}`},
		{"as everywhere: nothing", `{"membership":"join","displayname":"Bob"}`, "", "", `{"membership":"join"}`},
		{"as everywhere already", `{"membership":"join"}`, "", `{}`, ""},
		{"not in the room", `{"membership":"leave","displayname":"Bob"}`, "Alice", "", ""},
	} {
		t.Run(tc.test, func(t *testing.T) {
			w := newWorld(t, func(r *http.Request) (int, string) {
				switch {
				case r.Method == http.MethodPut:
					return 200, `{"event_id":"$e"}`
				case !strings.Contains(r.URL.Path, "/profile/"):
					return 200, tc.member
				case tc.profile != "":
					return 200, tc.profile
				}
				return 404, `{"errcode":"M_NOT_FOUND"}`
			}, nil)
			agent, err := w.As(alice)
			if err == nil {
				err = agent.Rename(t.Context(), room, tc.name)
			}
			if err != nil {
				t.Fatal(err)
			}
			written := ""
			for _, r := range w.remote.requests() {
				if strings.HasPrefix(r, "PUT ") {
					written += r[strings.Index(r, "{"):]
				}
			}
			if written != tc.want {
				t.Errorf("written %q, want %q", written, tc.want)
			}
		})
	}
}
