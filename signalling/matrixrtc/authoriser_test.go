package matrixrtc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"callserver/sfu"
	"callserver/signalling/federation"
	"callserver/signalling/token"
)

func TestNewReportsEveryMistake(t *testing.T) {
	_, err := New(Options{
		Keys:       token.Keys{"a": ""},
		SFUURL:     "rtc.example.org",
		ServiceURL: "wss://rtc.example.org/",
		Homeservers: []Homeserver{
			{ServerName: "https://example.org"},
			{ServerName: "example.com", ClientAPI: "matrix.example.com"},
			{ServerName: "example.com"},
		},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`keys: "a" has no secret`,
		`media server URL: "rtc.example.org"`, `service URL: "wss://rtc.example.org"`,
		"homeservers[0].server_name", "homeservers[1].client_api", "homeservers[2].server_name",
		"no rooms", "no directory",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %q:\n%v", want, err)
		}
	}
	if _, err := New(Options{Rooms: &rooms{}}); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("without keys: %v", err)
	}
}

func TestSigningKey(t *testing.T) {
	keys := token.Keys{"b": "secret b", "a": "secret a"}
	for chosen, want := range map[string]string{"": "a", "b": "b"} {
		w := newWorld(t, func(o *Options) { o.Keys, o.Key = keys, chosen })
		rec := w.do(t, "POST", "/sfu/get", sfuGetBody("T"))
		var body struct{ JWT string }
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		g, err := keys.Verify(body.JWT, w.now)
		if err != nil || g.Key != want {
			t.Errorf("with Key %q the token is signed with %q (%v), want %q", chosen, g.Key, err, want)
		}
	}
}

type logRooms struct{}

func (logRooms) CreateRoom(name string, o sfu.RoomOptions) error {
	fmt.Println("create", name, o.EmptyTimeout, o.DepartureTimeout)
	return nil
}

// A user of a homeserver that is not configured gets no further than this.
func Example() {
	directory := federation.New(federation.Options{})
	defer directory.Close()
	a, err := New(Options{
		Keys:        token.Keys{"devkey": "secret"},
		Rooms:       logRooms{},
		Directory:   directory,
		Homeservers: []Homeserver{{ServerName: "example.org"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = a.Close() }()
	body := `{"room":"!abc:example.org","device_id":"DEVICE","openid_token":{"access_token":"x","matrix_server_name":"example.com"}}`
	rec := httptest.NewRecorder()
	a.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/livekit/jwt/sfu/get", strings.NewReader(body)))
	fmt.Println(rec.Code, rec.Body)
	// Output: 403 {"errcode":"M_FORBIDDEN","error":"Users of your homeserver may not use this server"}
}
