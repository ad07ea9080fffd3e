package federation

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callserver/internal/canonical"
)

// synapseKey is the key of the examples in the specification's appendix "Cryptographic Test Vectors".
const synapseKey = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n"

const dendriteKey = `-----BEGIN MATRIX PRIVATE KEY-----
Key-ID: ed25519:1

YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA0=
-----END MATRIX PRIVATE KEY-----
`

func TestSigningKeyFiles(t *testing.T) {
	for name, text := range map[string]string{
		"Synapse": synapseKey, "Synapse with padding": "\n" + strings.Replace(synapseKey, "XA1\n", "XA0=\ned25519 2 x", 1), "Dendrite": dendriteKey,
		"Dendrite with a certificate before": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + dendriteKey,
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ParseSigningKey([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			// The vector of the specification for the empty object.
			const want = "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
			if got := key.sign([]byte("{}")); key.ID() != "ed25519:1" || got != want {
				t.Errorf("key %s signs {} as %s, want %s", key.ID(), got, want)
			}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				if printed := fmt.Sprintf(verb, key); len(printed) > len(`"ed25519:1"`) {
					t.Errorf("%s prints %s", verb, printed)
				}
			}
		})
	}
	for name, text := range map[string]string{
		"empty": "", "other algorithm": "rsa 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "two words": "ed25519 SECRETSECRET",
		"no base64": "ed25519 1 SECRET!SECRET", "short": "ed25519 1 SECRET", "odd name": "ed25519 \x00 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
		"other block": strings.ReplaceAll(dendriteKey, "MATRIX", "RSA"), "no key id": strings.Replace(dendriteKey, "Key-ID: ed25519:1\n\n", "\n", 1),
		"cut short": dendriteKey[:90],
	} {
		if key, err := ParseSigningKey([]byte(text)); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: key %v, error %v", name, key, err)
		}
	}
}

func TestClaims(t *testing.T) {
	full := Claim{"example.org:8448", "example.com", "ed25519:a_1", "c2ln"}
	for header, want := range map[string]Claim{
		full.String(): full,
		`X-Matrix origin=example.org:8448,destination=example.com,key=ed25519:a_1,sig=c2ln`:                          full,
		`x-matrix  ORIGIN = "example.org:8448" , destination="example.com",new="x, y",key="ed25519:a_1",sig="c2ln",`: full,
		`X-Matrix origin="a\"\\,=b",key="ed25519:1",sig="x"`:                                                         {Origin: `a"\,=b`, Key: "ed25519:1", Signature: "x"},
		`Bearer abc`: {}, ``: {}, `X-MatrixSomething origin=a`: {},
	} {
		got, err := Claims([]string{header})
		if err != nil || len(got) > 1 || len(got) == 1 && got[0] != want || len(got) == 0 && want != (Claim{}) {
			t.Errorf("%s is read as %+v (%v), want %+v", header, got, err, want)
		}
	}
	for _, header := range []string{
		`X-Matrix`, `X-Matrix origin="a",key="b"`, `X-Matrix origin="a",origin="b",key="k",sig="s"`, `X-Matrix origin="a`, `X-Matrix origin`,
		`X-Matrix origin="a"key="k",sig="s"`, `X-Matrix origin=a b,key=k,sig=s`, `X-Matrix origin="",key=k,sig=s`, `X-Matrix =a,origin=a,key=k,sig=s`,
		`X-Matrix origin=a,key=k,sig=` + strings.Repeat("s", maxClaim),
	} {
		if got, err := Claims([]string{header}); err == nil {
			t.Errorf("%.80s is read as %+v", header, got)
		}
	}
}

// peer is another homeserver: it publishes keys and takes signed requests.
type peer struct {
	key  *SigningKey
	edit func(map[string]any) // of what it publishes, before it is signed

	mu     sync.Mutex
	name   string
	until  time.Time
	keys   int // times that they were asked for
	claims []Claim
	bodies []string
}

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.URL.Path == pathKeys {
		p.keys++
		_, _ = w.Write(p.published())
		return
	}
	claims, err := Claims(r.Header.Values("Authorization"))
	if err != nil || len(claims) != 1 {
		http.Error(w, "no claim", http.StatusUnauthorized)
		return
	}
	var body json.RawMessage
	_ = json.NewDecoder(r.Body).Decode(&body)
	p.claims, p.bodies = append(p.claims, claims[0]), append(p.bodies, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	w.WriteHeader(http.StatusTeapot)
	_, _ = w.Write([]byte(`{}`))
}

func (p *peer) published() []byte {
	object := map[string]any{
		"server_name": p.name, "valid_until_ts": p.until.UnixMilli(),
		"verify_keys":     map[string]any{p.key.id: map[string]any{"key": encode(p.key.private.Public().(ed25519.PublicKey))}},
		"old_verify_keys": map[string]any{},
	}
	if p.edit != nil {
		p.edit(object)
	}
	if _, kept := object["signatures"]; !kept {
		object["signatures"] = map[string]any{p.name: map[string]any{p.key.id: p.key.sign(canonical.Append(nil, object))}}
	}
	return canonical.Append(nil, object)
}

func (p *peer) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys
}

func newPeer(t *testing.T) (*peer, *Directory) {
	t.Helper()
	p := &peer{name: "example.com", key: must(ParseSigningKey([]byte(synapseKey))), until: start.Add(time.Hour)}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return p, newDirectory(t, Options{Servers: []Server{{Name: p.name, Base: server.URL}}})
}

func message(destination string) Message {
	return Message{Method: "POST", URI: "/_matrix/federation/v1/x?y=%2F", Destination: destination, Content: map[string]any{"user_id": "@a:example.com"}}
}

func TestVerify(t *testing.T) {
	p, d := newPeer(t)
	m := message("example.org")
	c := p.key.Sign(p.name, m)
	for range 3 {
		if err := d.Verify(t.Context(), c, m, start); err != nil {
			t.Fatal(err)
		}
	}
	c.Destination = "" // as older servers write it
	if err := d.Verify(t.Context(), c, m, start); err != nil {
		t.Error(err)
	}
	if p.asked() != 1 {
		t.Errorf("keys were asked for %d times, want once", p.asked())
	}
	if err := d.Verify(t.Context(), c, m, start.Add(time.Hour)); err == nil || p.asked() != 2 {
		t.Errorf("after the end of their validity: %v, asked %d times", err, p.asked())
	}
}

func TestForgedClaims(t *testing.T) {
	other := must(ParseSigningKey([]byte("ed25519 1 " + strings.Repeat("A", 43))))
	retired := must(ParseSigningKey([]byte("ed25519 old " + strings.Repeat("A", 43))))
	cases := []struct {
		name  string
		forge func(p *peer, c *Claim, m *Message)
	}{
		{"no signature", func(_ *peer, c *Claim, _ *Message) { c.Signature = "AAAA" }},
		{"signature of another key", func(p *peer, c *Claim, m *Message) { *c = other.Sign(p.name, *m) }},
		{"key that it does not publish", func(_ *peer, c *Claim, _ *Message) { c.Key = "ed25519:2" }},
		{"key of another algorithm", func(_ *peer, c *Claim, _ *Message) { c.Key = "rsa:1" }},
		{"retired key", func(p *peer, c *Claim, m *Message) {
			p.edit = func(o map[string]any) {
				o["old_verify_keys"] = map[string]any{retired.id: map[string]any{"key": encode(retired.private.Public().(ed25519.PublicKey)), "expired_ts": int64(1)}}
			}
			*c = retired.Sign(p.name, *m)
		}},
		{"another origin", func(p *peer, c *Claim, m *Message) { *c = p.key.Sign("example.net", *m); c.Origin = p.name }},
		{"for another server", func(p *peer, c *Claim, m *Message) { *c = p.key.Sign(p.name, message("example.net")) }},
		{"for another server, without saying so", func(p *peer, c *Claim, m *Message) {
			*c = p.key.Sign(p.name, message("example.net"))
			c.Destination = ""
		}},
		{"another body", func(_ *peer, _ *Claim, m *Message) { m.Content = map[string]any{"user_id": "@b:example.com"} }},
		{"no body", func(_ *peer, _ *Claim, m *Message) { m.Content = nil }},
		{"another path", func(_ *peer, _ *Claim, m *Message) { m.URI = "/_matrix/federation/v1/x" }},
		{"another method", func(_ *peer, _ *Claim, m *Message) { m.Method = "PUT" }},
		{"keys of another server", func(p *peer, _ *Claim, _ *Message) {
			p.edit = func(o map[string]any) { o["server_name"] = "example.net" }
		}},
		{"keys that were valid", func(p *peer, _ *Claim, _ *Message) { p.until = start }},
		{"keys without signature", func(p *peer, _ *Claim, _ *Message) {
			p.edit = func(o map[string]any) { o["signatures"] = map[string]any{} }
		}},
		{"keys with a wrong signature", func(p *peer, _ *Claim, _ *Message) {
			p.edit = func(o map[string]any) {
				o["signatures"] = map[string]any{p.name: map[string]any{p.key.id: other.sign([]byte("{}"))}}
			}
		}},
		{"keys with a fraction", func(p *peer, _ *Claim, _ *Message) { p.edit = func(o map[string]any) { o["valid_until_ts"] = "soon" } }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p, d := newPeer(t)
			m := message("example.org")
			claim := p.key.Sign(p.name, m)
			c.forge(p, &claim, &m)
			for range 2 {
				if err := d.Verify(t.Context(), claim, m, start); err == nil {
					t.Error("believed")
				}
			}
			if p.asked() > 1 {
				t.Errorf("asked %d times for keys", p.asked())
			}
		})
	}
}

// A server that takes a new key is believed within half a minute, and one that withdraws the old one within its validity.
func TestKeyRotation(t *testing.T) {
	p, d := newPeer(t)
	m := message("example.org")
	if err := d.Verify(t.Context(), p.key.Sign(p.name, m), m, start); err != nil {
		t.Fatal(err)
	}
	old := p.key
	p.mu.Lock()
	p.key, p.until = must(ParseSigningKey([]byte("ed25519 2 "+strings.Repeat("B", 43)))), start.Add(2*time.Hour)
	p.mu.Unlock()
	if err := d.Verify(t.Context(), p.key.Sign(p.name, m), m, start.Add(keysPause-1)); err == nil || p.asked() != 1 {
		t.Errorf("a new key a moment later: %v, asked %d times", err, p.asked())
	}
	if err := d.Verify(t.Context(), p.key.Sign(p.name, m), m, start.Add(keysPause)); err != nil {
		t.Errorf("a new key: %v", err)
	}
	if err := d.Verify(t.Context(), old.Sign(p.name, m), m, start.Add(keysPause)); err == nil {
		t.Error("a key that is no longer published is believed")
	}
	p.mu.Lock()
	p.edit = func(o map[string]any) { o["server_name"] = "broken" }
	p.mu.Unlock()
	if err := d.Verify(t.Context(), old.Sign(p.name, m), m, start.Add(2*keysPause)); err == nil {
		t.Error("a key that is no longer published is believed")
	}
	if err := d.Verify(t.Context(), p.key.Sign(p.name, m), m, start.Add(2*keysPause)); err != nil {
		t.Errorf("known keys while the server is broken: %v", err)
	}
}

func TestSend(t *testing.T) {
	p, d := newPeer(t)
	key := must(ParseSigningKey([]byte(dendriteKey)))
	content := map[string]any{"b": "<é>", "a": 1}
	status, body, err := d.Send(t.Context(), "example.org", key, p.name, "/_matrix/federation/v1/x", content, start)
	if err != nil || status != http.StatusTeapot || string(body) != "{}" {
		t.Fatalf("answer %d %s, %v", status, body, err)
	}
	if want := []string{`POST /_matrix/federation/v1/x {"a":1,"b":"<é>"}`}; !slices.Equal(p.bodies, want) {
		t.Errorf("the other server got %q, want %q", p.bodies, want)
	}
	m := Message{Method: "POST", URI: "/_matrix/federation/v1/x", Destination: p.name, Content: maps.Clone(content)}
	if want := key.Sign("example.org", m); p.claims[0] != want {
		t.Errorf("signed as %s, want %s", p.claims[0], want)
	}
}

func TestSendToNobody(t *testing.T) {
	d := newDirectory(t, Options{})
	n := newNetwork(t, d, &vouching{})
	for range 2 {
		_, _, err := d.Send(t.Context(), "example.org", must(ParseSigningKey([]byte(dendriteKey))), "127.0.0.1:"+n.port, "/x", nil, start)
		if err == nil {
			t.Error("a server inside was reached")
		}
	}
	if len(n.dialled()) != 1 || n.reached() != 0 {
		t.Errorf("dialled %q, reached %d times", n.dialled(), n.reached())
	}
}

// Keys are published by strangers, and key files are whatever the operator names.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(synapseKey))
	f.Add([]byte(dendriteKey))
	p := &peer{name: "example.com", key: must(ParseSigningKey([]byte(synapseKey))), until: start.Add(time.Hour)}
	f.Add(p.published())
	f.Add([]byte(`{"server_name":"example.com","valid_until_ts":9007199254740991,"verify_keys":{"ed25519:1":{"key":""}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		ring, err := parseKeys(body, "example.com", start)
		if err == nil && (len(ring.keys) == 0 || !ring.until.After(start) || ring.until.After(start.Add(keysLife))) {
			t.Fatalf("%q is read as %+v", body, ring)
		}
		if key, err := ParseSigningKey(body); err == nil && (len(key.private) != ed25519.PrivateKeySize || !strings.HasPrefix(key.id, algorithm)) {
			t.Fatalf("%q is read as %s with %d bytes", body, key.id, len(key.private))
		}
	})
}

// Whatever the header: an error, or parts that are written and read back as they are.
func FuzzClaim(f *testing.F) {
	f.Add(`X-Matrix origin="example.org:8448",destination="example.com",key="ed25519:a_1",sig="c2ln"`)
	f.Add(`x-matrix origin=a , key = b,sig="\"",,x=y`)
	f.Fuzz(func(t *testing.T, header string) {
		claims, err := Claims([]string{header})
		if err != nil || len(claims) == 0 || strings.ContainsAny(claims[0].Origin+claims[0].Destination+claims[0].Key+claims[0].Signature, `"\`) {
			return
		}
		c := claims[0]
		again, err := Claims([]string{c.String()})
		if c.Destination == "" {
			return // written as an empty value, which is refused
		}
		if c.Origin == "" || c.Key == "" || c.Signature == "" || err != nil || again[0] != c {
			t.Fatalf("%q is read as %+v and then as %+v (%v)", header, c, again, err)
		}
	})
}
