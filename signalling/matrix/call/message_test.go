package call

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const invite = `{"call_id":"c","party_id":"p","version":"1","lifetime":60000,"offer":{"type":"offer","sdp":"v=0"},"capabilities":{"m.call.dtmf":true},
"sdp_stream_metadata":{"s":{"purpose":"m.usermedia","audio_muted":false,"video_muted":true}}}`

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, kind, content string
		want                string // fields of the message; with "!" an error
	}{
		{"invite", TypeInvite, invite, `c p 1 1m0s offer v=0 map[s:{m.usermedia false true}]`},
		{"invite of version 0", TypeInvite, `{"call_id":"c","version":0,"lifetime":60000,"offer":{"type":"offer","sdp":"v=0"}}`, `c  0 1m0s offer v=0 map[]`},
		{"version 0 in text", TypeInvite, `{"call_id":"c","version":"0","party_id":"p","lifetime":1,"offer":{"type":"offer","sdp":"v=0"}}`, `c p 0 1ms offer v=0 map[]`},
		{"a version of the future", TypeInvite, `{"call_id":"c","version":{"major":7},"party_id":"p","lifetime":1,"offer":{"sdp":"v=0"}}`, `c p 1 1ms offer v=0 map[]`},
		{"no party", TypeAnswer, `{"call_id":"c","party_id":null,"version":"1","answer":{"type":"answer","sdp":"v=0"}}`, `c  0 0s answer v=0 map[]`},
		{"the unstable name of streams", TypeAnswer, `{"call_id":"c","party_id":"p","version":"1","answer":{"type":"answer","sdp":"v"},"org.matrix.msc3077.sdp_stream_metadata":{"s":{"purpose":"m.screenshare"}}}`, `c p 1 0s answer v map[s:{m.screenshare false false}]`},
		{"streams changed, unstable", typeStreamsUnstable, `{"call_id":"c","party_id":"p","version":"1","sdp_stream_metadata":{}}`, `c p 1 0s   map[]`},
		{"negotiate, answer", TypeNegotiate, `{"call_id":"c","party_id":"p","version":"1","description":{"type":"answer","sdp":"v"}}`, `c p 1 0s answer v map[]`},
		{"negotiate, offer", TypeNegotiate, `{"call_id":"c","party_id":"p","version":"1","description":{"type":"offer","sdp":"v"},"lifetime":1e99}`, `c p 1 10m0s offer v map[]`},
		{"a negative life", TypeInvite, `{"call_id":"c","lifetime":-5,"offer":{"sdp":"v"}}`, `c  0 0s offer v map[]`},
		{"hangup", TypeHangup, `{"call_id":"c","party_id":"p","version":"1"}`, `c p 1 0s   map[]`},

		{"another type", "m.room.message", invite, "!"},
		{"a call of many", TypeInvite, `{"conf_id":"x",` + invite[1:], "!"},
		{"no object", TypeInvite, `[]`, "!"},
		{"no call", TypeHangup, `{}`, "!"},
		{"a call id that is no text", TypeHangup, `{"call_id":5}`, "!"},
		{"no offer", TypeInvite, `{"call_id":"c"}`, "!"},
		{"an answer for an offer", TypeInvite, `{"call_id":"c","offer":{"type":"answer","sdp":"v"}}`, "!"},
		{"a rollback", TypeNegotiate, `{"call_id":"c","description":{"type":"rollback","sdp":"v"}}`, "!"},
		{"nobody selected", TypeSelect, `{"call_id":"c","party_id":"p"}`, "!"},
		{"a long id", TypeHangup, fmt.Sprintf(`{"call_id":%q}`, strings.Repeat("c", 256)), "!"},
		{"a huge SDP", TypeInvite, fmt.Sprintf(`{"call_id":"c","offer":{"sdp":%q}}`, strings.Repeat("v", maxSDP+1)), "!"},
		{"a huge candidate", TypeCandidates, fmt.Sprintf(`{"call_id":"c","candidates":[{"candidate":%q}]}`, strings.Repeat("v", maxCandidate+1)), "!"},
		{"too many candidates", TypeCandidates, `{"call_id":"c","candidates":[` + strings.Repeat("{},", maxCandidates) + `{}]}`, "!"},
		{"a line that is none", TypeCandidates, `{"call_id":"c","candidates":[{"candidate":"x","sdpMLineIndex":-1}]}`, "!"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := Parse(Event{Type: tc.kind, ID: "$e", Sender: bob, Content: json.RawMessage(tc.content)})
			if tc.want == "!" {
				if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrMalformed) {
					t.Errorf("got %+v, %v", m, err)
				}
				return
			}
			got := fmt.Sprintf("%s %s %d %s %s %s %v", m.Call, m.Party, m.Version, m.Lifetime, m.Description.Type, m.Description.SDP, m.Streams)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestParseCandidates(t *testing.T) {
	m, err := Parse(Event{Type: TypeCandidates, Sender: bob, Content: json.RawMessage(
		`{"call_id":"c","candidates":[{"candidate":"candidate:1","sdpMid":"0"},{"candidate":"candidate:2","sdpMLineIndex":1},{"candidate":""},{"candidate":" "}]}`)})
	if err != nil || len(m.Candidates) != 2 || *m.Candidates[0].MID != "0" || *m.Candidates[1].Line != 1 {
		t.Errorf("got %+v, %v", m.Candidates, err)
	}
	if _, err := Parse(Event{Type: TypeHangup, Content: json.RawMessage(`{"call_id":"c"}`)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("without a sender: %v", err)
	}
}

// FuzzParse feeds whatever strangers may send to the reader, and what it reads to calls in every state.
func FuzzParse(f *testing.F) {
	for _, content := range []string{invite, `{"call_id":"call","party_id":"B1","version":"1","candidates":[{"candidate":"x"}]}`,
		`{"call_id":"call","party_id":"B1","version":"1","description":{"type":"offer","sdp":"v"},"lifetime":30000}`, `{"call_id":"call","selected_party_id":"ours","party_id":"B1"}`} {
		for i := range Types {
			f.Add(uint8(i), content)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, content string) {
		m, err := Parse(Event{Type: Types[int(kind)%len(Types)], ID: "$e", Sender: bob, Age: time.Second, Content: json.RawMessage(content)})
		if err != nil {
			if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v", err)
			}
			return
		}
		if m.Lifetime < 0 || m.Lifetime > maxLifetime || len(m.Description.SDP) > maxSDP {
			t.Errorf("out of bounds: %+v", m)
		}
		_, _ = Incoming(m, Options{Party: ours, Self: alice}, start)
		for _, begin := range []func(*testing.T) *script{called, calledV0, calledUp, outgoing, callingUp} {
			s := begin(t)
			s.Heard(m, s.now)
			s.Tick(s.now.Add(time.Hour))
			for _, e := range s.Effects() {
				if send, ok := e.(Send); ok {
					if _, err := json.Marshal(send.Content); err != nil {
						t.Error(err)
					}
				}
			}
		}
	})
}

// docs/specifications.md says something about every event, and every field that is read or sent.
func TestSpecificationsAreComplete(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "specifications.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Calls between two")
	if !found {
		t.Fatal("it has no section on calls between two")
	}
	names := slices.Clone(Types)
	for _, content := range []any{
		raw{}, Description{}, Candidate{}, Stream{}, Identity{}, Head{}, Invite{}, Answer{}, Negotiate{}, Candidates{}, Select{}, Reject{}, Hangup{}, StreamsChanged{}, Asserted{}, Capabilities{},
	} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(content)) {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("%s is not mentioned", name)
		}
	}
}
