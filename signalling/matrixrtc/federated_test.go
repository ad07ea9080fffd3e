package matrixrtc

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"callserver/internal/canonical"
	"callserver/signalling/federation"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// other is another homeserver: it signs, publishes its key, and answers requests for tokens.
type other struct {
	key    *federation.SigningKey
	secret ed25519.PrivateKey
	name   string
	answer func(path string) (int, string)

	mu   sync.Mutex
	keys int
	got  []string
}

func newOther(t *testing.T, w *world) *other {
	t.Helper()
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	o := &other{secret: ed25519.NewKeyFromSeed(seed), key: signingKey(t, "a_1", seed)}
	o.name = w.another(t, o)
	return o
}

func signingKey(t *testing.T, name string, seed []byte) *federation.SigningKey {
	t.Helper()
	key, err := federation.ParseSigningKey([]byte("ed25519 " + name + " " + base64.RawStdEncoding.EncodeToString(seed)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (o *other) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path == "/_matrix/key/v2/server" {
		o.keys++
		object := map[string]any{
			"server_name": o.name, "valid_until_ts": time.Now().Add(time.Hour).UnixMilli(),
			"verify_keys": map[string]any{o.key.ID(): map[string]any{"key": base64.RawStdEncoding.EncodeToString(o.secret.Public().(ed25519.PublicKey))}},
		}
		signature := base64.RawStdEncoding.EncodeToString(ed25519.Sign(o.secret, canonical.Append(nil, object)))
		object["signatures"] = map[string]any{o.name: map[string]any{o.key.ID(): signature}}
		_, _ = w.Write(canonical.Append(nil, object))
		return
	}
	body, _ := io.ReadAll(r.Body)
	o.got = append(o.got, r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(body))
	status, text := o.answer(r.URL.Path)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// sign makes the header of a request with the body.
func (o *other) sign(t *testing.T, origin, destination, path, body string) string {
	t.Helper()
	content, err := canonical.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return o.key.Sign(origin, federation.Message{Method: "POST", URI: path, Destination: destination, Content: content.(map[string]any)}).String()
}

// inRoom is a world whose homeserver says that rob of another one is in the room, with alice in the call.
func inRoom(t *testing.T, registrations ...*homeserver.Registration) (*world, *other, string) {
	t.Helper()
	m := &matrix{query: true}
	_, connect := withMatrix(t, m, append(registrations, wide())...)
	w := newWorld(t, func(o *Options) { connect(o); o.Remote = RemoteSubscribe })
	o := newOther(t, w)
	rob := "@rob:" + o.name
	m.members = map[string]string{rob: "join", "@alice:example.org": "join"}
	w.calls.hold("@alice:example.org")
	return w, o, with(hostedBody, "user_id", rob)
}

func TestSignedRequest(t *testing.T) {
	w, o, body := inRoom(t)
	for _, path := range []string{federatedToken, "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"} {
		g := jwt(t, w.do(t, "POST", path, body, "Authorization", o.sign(t, o.name, "example.org", path, body)))
		if g.Identity != member.Hash("@rob:"+o.name, "xyz") || g.CanPublish || g.CanCreateRoom() || !g.CanSubscribe {
			t.Errorf("granted %+v", g)
		}
	}
	if o.keys != 1 {
		t.Errorf("asked %d times for the key", o.keys)
	}
	outsider := with(hostedBody, "user_id", "@out:"+o.name)
	expect(t, w.do(t, "POST", federatedToken, outsider, "Authorization", o.sign(t, o.name, "example.org", federatedToken, outsider)), 403, "M_FORBIDDEN")
	wrong := with(body, "url", "wss://rtc.example.com/livekit/sfu")
	expect(t, w.do(t, "POST", federatedToken, wrong, "Authorization", o.sign(t, o.name, "example.org", federatedToken, wrong)), 400, "M_INVALID_PARAM")
	expect(t, w.do(t, "POST", federatedToken, hostedBody, "Authorization", o.sign(t, o.name, "example.org", federatedToken, hostedBody)), 400, "M_BAD_JSON")
	w.calls.Evict("@alice:example.org", "!abc:example.org")
	expect(t, w.do(t, "POST", federatedToken, body, "Authorization", o.sign(t, o.name, "example.org", federatedToken, body)), 403, "M_FORBIDDEN") // nobody of ours
}

func TestForgedMatrixHeaders(t *testing.T) {
	w, o, body := inRoom(t)
	good := o.sign(t, o.name, "example.org", federatedToken, body)
	stranger := &other{name: o.name, key: signingKey(t, "a_1", bytes.Repeat([]byte{8}, 32))}
	cases := []struct {
		name, auth, body string
		status           int
		code             string
	}{
		{"no header", "", body, 401, "M_UNAUTHORIZED"},
		{"no signature", good[:strings.Index(good, ",sig")], body, 401, "M_UNAUTHORIZED"},
		{"empty signature", good[:strings.Index(good, ",sig")] + `,sig=""`, body, 401, "M_UNAUTHORIZED"},
		{"wrong key", stranger.sign(t, o.name, "example.org", federatedToken, body), body, 401, "M_UNAUTHORIZED"},
		{"unknown key", strings.Replace(good, "a_1", "a_2", 1), body, 401, "M_UNAUTHORIZED"},
		{"wrong destination", o.sign(t, o.name, "example.com", federatedToken, body), body, 401, "M_UNAUTHORIZED"},
		{"destination changed", strings.Replace(o.sign(t, o.name, "example.com", federatedToken, body), `"example.com"`, `"example.org"`, 1), body, 401, "M_UNAUTHORIZED"},
		{"replayed with another body", good, with(body, "member_id", "other"), 401, "M_UNAUTHORIZED"},
		{"of another path", o.sign(t, o.name, "example.org", "/_matrix/federation/v1/other", body), body, 401, "M_UNAUTHORIZED"},
		{"origin is not the user's", good, with(body, "user_id", "@alice:example.org"), 403, "M_FORBIDDEN"},
		{"hostile server vouches for another's user", o.sign(t, o.name, "example.org", federatedToken, with(body, "user_id", "@victim:example.com")), with(body, "user_id", "@victim:example.com"), 403, "M_FORBIDDEN"},
		{"user id is none", o.sign(t, o.name, "example.org", federatedToken, with(body, "user_id", o.name)), with(body, "user_id", o.name), 403, "M_FORBIDDEN"},
		{"origin is our own server", strings.Replace(good, `origin="`+o.name, `origin="example.org`, 1), with(body, "user_id", "@alice:example.org"), 401, "M_UNAUTHORIZED"},
		{"access token in place of it", "Bearer A", body, 401, "M_UNAUTHORIZED"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			expect(t, w.do(t, "POST", federatedToken, c.body, "Authorization", c.auth), c.status, c.code)
		})
	}
	t.Run("X-Matrix-Origin without hs_token", func(t *testing.T) {
		expect(t, w.do(t, "POST", federatedToken, body, "X-Matrix-Origin", o.name), 401, "M_UNAUTHORIZED")
		expect(t, w.do(t, "POST", federatedToken, body, "Authorization", "Bearer x", "X-Matrix-Origin", o.name), 401, "M_UNAUTHORIZED")
	})
	t.Run("still good", func(t *testing.T) { jwt(t, w.do(t, "POST", federatedToken, body, "Authorization", good)) })
}

func TestFederatedByTheHomeserver(t *testing.T) {
	r := proxying()
	w, o, body := inRoom(t, r)
	ask := func(token, origin string) *httptest.ResponseRecorder {
		return w.do(t, "POST", federatedToken, body, "Authorization", "Bearer "+token, "X-Matrix-Origin", origin)
	}
	if g := jwt(t, ask(r.ServerToken, o.name)); g.CanPublish {
		t.Errorf("granted %+v", g)
	}
	expect(t, ask(r.ServerToken, "example.com"), 403, "M_FORBIDDEN")
	expect(t, ask(r.ServerToken, ""), 403, "M_FORBIDDEN")
	expect(t, ask(r.AppToken, o.name), 401, "M_UNAUTHORIZED")
	if o.keys != 0 {
		t.Error("keys were asked for though the homeserver had verified the request")
	}
}

// Users of servers that get nothing here make us ask nobody for keys.
func TestSignedRequestOfUnlistedServer(t *testing.T) {
	w, o, body := inRoom(t)
	w.options.Remote = RemoteRefuse
	expect(t, w.do(t, "POST", federatedToken, body, "Authorization", o.sign(t, o.name, "example.org", federatedToken, body)), 403, "M_FORBIDDEN")
	if o.keys != 0 {
		t.Error("keys were asked for")
	}
}

// Keys are fetched by the name in a header that anybody can write.
func TestOriginInside(t *testing.T) {
	w, o, _ := inRoom(t)
	w.direct(t, federation.Options{}) // the public internet only
	for _, origin := range []string{o.name, "[::ffff:127.0.0.1]:" + o.name[strings.LastIndexByte(o.name, ':')+1:], "localhost:1", "10.0.0.1", "169.254.169.254", "[fe80::1]"} {
		body := with(hostedBody, "user_id", "@rob:"+origin)
		expect(t, w.do(t, "POST", federatedToken, body, "Authorization", o.sign(t, origin, "example.org", federatedToken, body)), 401, "M_UNAUTHORIZED")
	}
	if o.keys != 0 {
		t.Error("a server inside was asked")
	}
}

func TestTokenOfAnotherServer(t *testing.T) {
	answers := []struct {
		name   string
		answer func(string) (int, string)
		status int
		code   string
	}{
		{"token", func(string) (int, string) { return 200, `{"jwt":"theirs"}` }, 200, ""},
		{"only the stable path", func(path string) (int, string) {
			if strings.Contains(path, "unstable") {
				return 404, `{"errcode":"M_UNRECOGNIZED"}`
			}
			return 200, `{"jwt":"theirs"}`
		}, 200, ""},
		{"forbidden", func(string) (int, string) { return 403, `{"errcode":"M_FORBIDDEN","error":"no"}` }, 403, "M_FORBIDDEN"},
		{"bad url", func(string) (int, string) { return 400, `{"errcode":"M_INVALID_PARAM","error":"no"}` }, 400, "M_INVALID_PARAM"},
		{"no such thing", func(string) (int, string) { return 404, `{"errcode":"M_UNRECOGNIZED"}` }, 502, "M_UNKNOWN"},
		{"not authorised", func(string) (int, string) { return 401, `{"errcode":"M_UNAUTHORIZED"}` }, 502, "M_UNKNOWN"},
		{"broken", func(string) (int, string) { return 500, `{}` }, 502, "M_UNKNOWN"},
		{"no jwt", func(string) (int, string) { return 200, `{}` }, 502, "M_UNKNOWN"},
	}
	check := func(t *testing.T, rec *httptest.ResponseRecorder, status int, code string) {
		t.Helper()
		expect(t, rec, status, code)
		if status == 200 && rec.Body.String() != `{"jwt":"theirs"}` {
			t.Errorf("the answer is %s", rec.Body)
		}
	}
	for _, a := range answers {
		t.Run("signed: "+a.name, func(t *testing.T) {
			w, _ := hosting(t, func(o *Options) { o.Homeservers[0].SigningKey = signingKey(t, "own", bytes.Repeat([]byte{9}, 32)) })
			o := newOther(t, w)
			o.answer = a.answer
			ask := with(with(hostedBody, "server_name", o.name), "url", "wss://theirs.example/sfu")
			check(t, w.do(t, "POST", hostedToken, ask, "Authorization", "Bearer A"), a.status, a.code)
			want := `{"member_id":"xyz","room_id":"!abc:example.org","slot_id":"m.call#ROOM","url":"wss://theirs.example/sfu","user_id":"@alice:example.org"}`
			if len(o.got) == 0 || !strings.Contains(o.got[0], `X-Matrix origin="example.org",destination="`+o.name+`",key="ed25519:own",sig=`) || !strings.HasSuffix(o.got[0], want) {
				t.Errorf("the other server got %q, want %s", o.got, want)
			}
		})
		t.Run("by the homeserver: "+a.name, func(t *testing.T) {
			w, h := hosting(t, nil, proxying())
			h.proxy = func(destination, path string, body map[string]any) (int, string) {
				if destination != "theirs.example" || body["user_id"] != "@alice:example.org" || body["url"] != "wss://theirs.example/sfu" {
					return 599, "{}"
				}
				return a.answer(path)
			}
			ask := with(with(hostedBody, "server_name", "theirs.example"), "url", "wss://theirs.example/sfu")
			check(t, w.do(t, "POST", hostedToken, ask, "Authorization", "Bearer A"), a.status, a.code)
		})
	}
}

func TestTokenOfAnotherServerWithoutMeans(t *testing.T) {
	var log bytes.Buffer
	w, _ := hosting(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	o := newOther(t, w)
	expect(t, w.do(t, "POST", hostedToken, with(hostedBody, "server_name", o.name), "Authorization", "Bearer A"), 502, "M_UNKNOWN")
	if !strings.Contains(log.String(), "homeservers[].signing_key_file") {
		t.Errorf("the log does not name the setting:\n%s", &log)
	}
	// Who is not in the room gets nothing sent in its name.
	expect(t, w.do(t, "POST", hostedToken, with(hostedBody, "server_name", o.name), "Authorization", "Bearer E"), 403, "M_FORBIDDEN")
	if len(o.got) != 0 {
		t.Errorf("the other server got %q", o.got)
	}
}

func TestServerNameInside(t *testing.T) {
	w, _ := hosting(t, func(o *Options) { o.Homeservers[0].SigningKey = signingKey(t, "own", bytes.Repeat([]byte{9}, 32)) })
	o := newOther(t, w)
	o.answer = func(string) (int, string) { return 200, `{"jwt":"inside"}` }
	w.direct(t, federation.Options{}) // the public internet only
	port := o.name[strings.LastIndexByte(o.name, ':'):]
	for _, name := range []string{
		o.name, "127.1.2.3" + port, "localhost" + port, "[::1]" + port, "[::ffff:127.0.0.1]" + port, "[::ffff:7f00:1]" + port, "0.0.0.0" + port,
		"10.0.0.1:22", "192.168.1.1:22", "172.16.0.1", "169.254.169.254:80", "[fe80::1]" + port, "[fd00::1]" + port, "100.64.0.1",
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, w.do(t, "POST", hostedToken, with(hostedBody, "server_name", name), "Authorization", "Bearer A"), 502, "M_UNKNOWN")
		})
	}
	if len(o.got) != 0 {
		t.Errorf("a server inside got %q", o.got)
	}
}
