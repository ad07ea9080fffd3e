package matrixrtc

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"callserver/signalling/federation"
)

// Whatever the body is: an answer in the form of the specification, and no lookup without every field.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(sfuGetBody("T")))
	f.Add([]byte(getTokenBody("T", "@alice:example.org")))
	f.Add([]byte(`{"room":null,"openid_token":[]}`))
	f.Add([]byte(`{"room":"!a","device_id":"8448:x","openid_token":{"access_token":"T","matrix_server_name":"example.org"},"delay_id":0}`))
	f.Add([]byte(`{"member":{"id":"\ud800"},"slot_id":"\u0000"}`))
	f.Add([]byte(hostedBody))
	f.Add([]byte(`{"url":"u","room_id":"r","slot_id":"s","member":{"id":"m"},"delay_id":"d","user_id":"@a:b"}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for name, parse := range map[string]func([]byte) (*request, error){
			"sfu/get": parseSFUGet, "get_token": parseGetToken,
			"hosted": parseHosted, "delegation": parseHostedDelegation, "federated": parseFederated,
		} {
			q, err := parse(body)
			if err != nil {
				var r *refusal
				if !errors.As(err, &r) || r.status != 400 || r.code != "M_NOT_JSON" && r.code != "M_BAD_JSON" || r.text == "" {
					t.Fatalf("%s refuses %q with %#v", name, body, err)
				}
				continue
			}
			whole := q.device != "" && q.openID.AccessToken != "" && q.openID.ServerName != "" && (q.member == "") == (q.claimedUser == "")
			if q.generation == unlinked {
				whole = q.member != "" && q.url != "" && (name == "federated") == (q.claimedUser != "") && (name == "delegation") == (q.delay != "")
			}
			if q.room == "" || q.slot == "" || !whole {
				t.Fatalf("%s accepts %q as %+v", name, body, q)
			}
			if identity := q.identity("@a:example.org"); identity == "" {
				t.Fatalf("%s of %q leads to no identity", name, body)
			}
		}
	})
}

// Paths and hosts reach the handler as clients send them.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"/sfu/get", "//", "/livekit/jwt//sfu/get", "/_matrix/client/v1/rtc/transports", "/%2e%2e/sfu/get"} {
		f.Add(p, "example.org")
	}
	f.Add("/.well-known/matrix/client", "[::1]:80")
	w, err := New(Options{Keys: testKeys, Rooms: &rooms{}, Directory: federation.New(federation.Options{}), Homeservers: []Homeserver{{ServerName: "example.org"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = w.Close() })
	f.Fuzz(func(t *testing.T, path, host string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path, r.Host = path, host
		rec := httptest.NewRecorder()
		w.Handler().ServeHTTP(rec, r)
		if rec.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Fatalf("answer to %q has no CORS header", path)
		}
	})
}
