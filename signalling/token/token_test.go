package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	now  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	keys = Keys{"devkey": "secret", "other": "another secret", "empty": ""}
)

// everything has no field at its zero value.
var everything = Grant{
	Identity: "@alice:example.org:DEV/+ é\n", Name: "Alice <a&b>", Metadata: `{"a":1}`, Kind: "agent",
	KindDetails: []string{"cloud_agent"}, Attributes: map[string]string{"k": "v"},
	Room: "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E", DestinationRoom: "elsewhere",
	RoomJoin: true, RoomAdmin: true, RoomCreate: true, RoomList: true, RoomRecord: true, IngressAdmin: true,
	FullAccess: true,
	RoomConfig: json.RawMessage(`{"emptyTimeout":5}`), SHA256: "abc",
	Permission: Permission{
		CanPublish: true, CanSubscribe: true, CanPublishData: true, CanUpdateOwnMetadata: true,
		CanSubscribeMetrics: true, CanManageAgentSession: true, CanPublishSources: []string{"camera"},
		Hidden: true, Recorder: true, Agent: true,
	},
}

func mint(t *testing.T, g Grant, ttl time.Duration) string {
	t.Helper()
	raw, err := keys.Mint("devkey", g, ttl, now)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRoundTrip(t *testing.T) {
	for name, want := range map[string]Grant{
		"everything":  everything,
		"nothing":     {},
		"participant": Join("room", "alice"),
	} {
		t.Run(name, func(t *testing.T) {
			want.Validity = Validity{Key: "devkey", IssuedAt: now, NotBefore: now, Expires: now.Add(time.Hour)}
			got, err := keys.Verify(mint(t, want, time.Hour), now)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("minted (-), verified (+):\n%s", d)
			}
		})
	}
}

// sign makes a token of any claims.
func sign(t *testing.T, method jwt.SigningMethod, key any, claims string) string {
	t.Helper()
	var c jwt.MapClaims
	if err := json.Unmarshal([]byte(claims), &c); err != nil {
		t.Fatal(err)
	}
	raw, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestDefaults covers what tokens of others leave out.
func TestDefaults(t *testing.T) {
	all := Permission{CanPublish: true, CanSubscribe: true, CanPublishData: true}
	cases := []struct {
		name, video string
		want        Permission
	}{
		{"no video grant", ``, all},
		{"empty video grant", `"video":{},`, all},
		{"null is absent", `"video":{"canPublish":null,"canSubscribe":null},`, all},
		{"data follows publish", `"video":{"canPublish":false},`, Permission{CanSubscribe: true}},
		{"data for itself", `"video":{"canPublish":false,"canPublishData":true},`, Permission{CanSubscribe: true, CanPublishData: true}},
		{"no data", `"video":{"canPublishData":false},`, Permission{CanPublish: true, CanSubscribe: true}},
		{"no subscribe", `"video":{"canSubscribe":false},`, Permission{CanPublish: true, CanPublishData: true}},
		{"own metadata", `"video":{"canUpdateOwnMetadata":true},`, Permission{CanPublish: true, CanSubscribe: true, CanPublishData: true, CanUpdateOwnMetadata: true}},
		{"sources", `"video":{"canPublishSources":["camera","microphone"]},`, Permission{CanPublish: true, CanSubscribe: true, CanPublishData: true, CanPublishSources: []string{"camera", "microphone"}}},
		{"unknown claims", `"sip":{"call":true},"video":{"new":[1]},"aud":"x",`, all},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			raw := sign(t, jwt.SigningMethodHS256, []byte("secret"), `{`+c.video+`"iss":"devkey","sub":"alice","exp":1795435200}`)
			got, err := keys.Verify(raw, now)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got.Permission); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if got.RoomJoin || got.CanCreateRoom() || !got.NotBefore.IsZero() || !got.IssuedAt.IsZero() {
				t.Errorf("granted out of nothing: %+v", got)
			}
		})
	}
}

func TestIdentityOfOlderIssuers(t *testing.T) {
	for claims, want := range map[string]string{
		`"sub":"a","identity":"b"`: "a",
		`"identity":"b"`:           "b",
		`"sub":"","identity":"b"`:  "b",
		`"jti":"c"`:                "",
	} {
		raw := sign(t, jwt.SigningMethodHS256, []byte("secret"), `{`+claims+`,"iss":"devkey","exp":1795435200}`)
		g, err := keys.Verify(raw, now)
		if err != nil || g.Identity != want {
			t.Errorf("%s: identity %q (%v), want %q", claims, g.Identity, err, want)
		}
	}
}

func TestWhoMayCreateTheRoom(t *testing.T) {
	for claims, want := range map[string]bool{
		`"video":{}`:                                    false,
		`"video":{"roomCreate":true}`:                   true,
		`"callserver":{"room":true}`:                    true,
		`"callserver":{"room":false}`:                   false,
		`"callserver":{}`:                               false,
		`"callserver":null`:                             false,
		`"video":{"roomAdmin":true}`:                    false,
		`"video":{"callserver":{"room":true}}`:          false,
		`"attributes":{"callserver":"{\"room\":true}"}`: false,
	} {
		raw := sign(t, jwt.SigningMethodHS256, []byte("secret"), `{`+claims+`,"iss":"devkey","exp":1795435200}`)
		g, err := keys.Verify(raw, now)
		if err != nil || g.CanCreateRoom() != want {
			t.Errorf("%s: may create the room: %t (%v), want %t", claims, g.CanCreateRoom(), err, want)
		}
	}
}

func TestVerifyErrors(t *testing.T) {
	good := mint(t, everything, time.Hour)
	part := strings.Split(good, ".")
	claims := `{"iss":"devkey","sub":"a","exp":1795435200}`
	hs := func(secret, claims string) string { return sign(t, jwt.SigningMethodHS256, []byte(secret), claims) }
	segment := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	cases := []struct {
		name, raw string
		want      error
	}{
		{"empty", "", ErrMalformed},
		{"one part", "abc", ErrMalformed},
		{"four parts", good + ".x", ErrMalformed},
		{"not base64", "ä.ö.ü", ErrMalformed},
		{"header is no JSON", segment("x") + "." + part[1] + "." + part[2], ErrMalformed},
		{"claims are no JSON", part[0] + "." + segment("x") + "." + part[2], ErrMalformed},
		{"claims are a list", part[0] + "." + segment("[]") + "." + part[2], ErrMalformed},
		{"flag is a string", hs("secret", `{"iss":"devkey","exp":1795435200,"video":{"canPublish":"true"}}`), ErrMalformed},
		{"signature is no base64", part[0] + "." + part[1] + ".!", ErrMalformed},
		{"loose bits in the signature", looseBits(good), ErrMalformed},
		{"no expiry", hs("secret", `{"iss":"devkey","sub":"a"}`), ErrMalformed},
		{"expiry is text", hs("secret", `{"iss":"devkey","exp":"never"}`), ErrMalformed},
		{"too large", strings.Repeat("a", MaxSize+1), ErrTooLarge},
		{"no issuer", hs("secret", `{"sub":"a","exp":1795435200}`), ErrUnknownKey},
		{"unknown issuer", hs("secret", `{"iss":"nobody","exp":1795435200}`), ErrUnknownKey},
		{"empty secret", hs("", `{"iss":"empty","exp":1795435200}`), ErrUnknownKey},
		{"wrong secret", hs("Secret", claims), ErrSignature},
		{"secret of another key", hs("another secret", claims), ErrSignature},
		{"no signature", part[0] + "." + part[1] + ".", ErrSignature},
		{"changed claims", part[0] + "." + segment(claims) + "." + part[2], ErrSignature},
		{"algorithm none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims), ErrSignature},
		{"algorithm HS384", sign(t, jwt.SigningMethodHS384, []byte("secret"), claims), ErrSignature},
		{"algorithm HS512", sign(t, jwt.SigningMethodHS512, []byte("secret"), claims), ErrSignature},
		{"unknown algorithm", segment(`{"alg":"hs256"}`) + "." + part[1] + "." + part[2], ErrSignature},
		{"algorithm is a number", segment(`{"alg":5}`) + "." + part[1] + "." + part[2], ErrSignature},
		{"expired", hs("secret", fmt.Sprintf(`{"iss":"devkey","exp":%d}`, now.Add(-Leeway).Unix())), ErrExpired},
		{"expired long ago", hs("secret", `{"iss":"devkey","exp":-1e300}`), ErrExpired},
		{"expired within the leeway", hs("secret", fmt.Sprintf(`{"iss":"devkey","exp":%d}`, now.Add(time.Second-Leeway).Unix())), nil},
		{"not yet", hs("secret", fmt.Sprintf(`{"iss":"devkey","exp":1795435200,"nbf":%d}`, now.Add(Leeway+time.Second).Unix())), ErrNotYetValid},
		{"not yet, within the leeway", hs("secret", fmt.Sprintf(`{"iss":"devkey","exp":1795435200,"nbf":%d}`, now.Add(Leeway).Unix())), nil},
		{"fractions of seconds", hs("secret", `{"iss":"devkey","exp":1795435200.5,"nbf":0.5}`), nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g, err := keys.Verify(c.raw, now)
			if !errors.Is(err, c.want) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			if err != nil && !cmp.Equal(g, Grant{}) {
				t.Errorf("error comes with the grant %+v", g)
			}
			for _, other := range []error{ErrMalformed, ErrTooLarge, ErrUnknownKey, ErrSignature, ErrExpired, ErrNotYetValid} {
				if !errors.Is(c.want, other) && errors.Is(err, other) {
					t.Errorf("error %v is also %v", err, other)
				}
			}
		})
	}
}

// looseBits changes the bits of the last character that do not count: an HMAC-SHA256 ends with two of them.
func looseBits(raw string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, raw[len(raw)-1])
	return raw[:len(raw)-1] + string(alphabet[last+1])
}

func TestMintErrors(t *testing.T) {
	cases := []struct {
		name, key string
		g         Grant
		ttl       time.Duration
		want      error
	}{
		{"unknown key", "nobody", Grant{}, time.Hour, ErrUnknownKey},
		{"empty secret", "empty", Grant{}, time.Hour, ErrUnknownKey},
		{"no life", "devkey", Grant{}, 0, nil},
		{"identity is no text", "devkey", Join("room", "\xff"), time.Hour, nil},
		{"room is no text", "devkey", Join("\xff", "a"), time.Hour, nil},
		{"room configuration is no JSON", "devkey", Grant{RoomConfig: json.RawMessage("{")}, time.Hour, nil},
		{"too large", "devkey", Grant{Metadata: strings.Repeat("m", MaxSize)}, time.Hour, ErrTooLarge},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			raw, err := keys.Mint(c.key, c.g, c.ttl, now)
			if err == nil || raw != "" || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("Mint = %q, %v; want error %v", raw, err, c.want)
			}
		})
	}
}

func TestRefresh(t *testing.T) {
	cases := []struct {
		name      string
		ttl, used time.Duration
		left      time.Duration
	}{
		{"long call", 6 * time.Hour, time.Hour, 5 * time.Hour},
		{"near the end", time.Hour, 55 * time.Minute, 10 * time.Minute},
		{"after the end", time.Hour, 3 * time.Hour, 10 * time.Minute},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			first, err := keys.Verify(mint(t, everything, c.ttl), now)
			if err != nil {
				t.Fatal(err)
			}
			later := now.Add(c.used)
			raw, err := keys.Refresh(first, later)
			if err != nil {
				t.Fatal(err)
			}
			second, err := keys.Verify(raw, later)
			if err != nil {
				t.Fatal(err)
			}
			if left := second.Expires.Sub(later); left != c.left || !second.NotBefore.Equal(later) {
				t.Errorf("valid for %s from %s, want %s from %s", left, second.NotBefore, c.left, later)
			}
			if d := cmp.Diff(first, second, cmpopts.IgnoreTypes(time.Time{})); d != "" {
				t.Errorf("other grants after the refresh:\n%s", d)
			}
		})
	}
	if _, err := (Keys{}).Refresh(Grant{Validity: Validity{Key: "gone"}}, now); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("refresh with a key that is gone: %v", err)
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("keys", "keys", keys)
	slog.New(slog.NewTextHandler(&log, nil)).Info("keys", "keys", keys)
	fmt.Fprintf(&log, "%v %s %+v", keys, keys, keys)
	if strings.Contains(log.String(), "secret") || strings.Count(log.String(), "keys[devkey empty other]") != 5 {
		t.Errorf("keys are shown as:\n%s", &log)
	}
}

func BenchmarkVerify(b *testing.B) {
	raw, err := keys.Mint("devkey", Join("TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E", "@alice:example.org:DEVICE"), time.Hour, now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Verify(raw, now); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	raw, err := keys.Mint("devkey", everything, time.Hour, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:len(raw)-1])
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJub25lIn0.eyJleHAiOjl9.")
	f.Add("...")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := keys.Verify(s, now)
		if err == nil && s != raw && strings.NewReplacer("\r", "", "\n", "").Replace(s) != raw {
			t.Fatalf("forged: %q grants %+v", s, g)
		}
	})
}

// FuzzClaims signs whatever there is: the holder of a key may write nonsense, but not break the reader.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"iss":"devkey","exp":1795435200,"video":{"canPublish":false}}`))
	f.Add([]byte(`{"iss":"devkey","exp":1e300,"nbf":-1e300,"iat":0.1,"roomConfig":null}`))
	f.Add([]byte(`{"iss":"devkey","exp":1795435200,"aud":[null],"attributes":{"a":"\ud800"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		head := "eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString(text)
		sum, err := jwt.SigningMethodHS256.Sign(head, []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		g, err := keys.Verify(head+"."+base64.RawURLEncoding.EncodeToString(sum), now)
		if err != nil {
			return
		}
		raw, err := keys.Refresh(g, now)
		if err != nil {
			return // a life of centuries, or larger than allowed
		}
		again, err := keys.Verify(raw, now)
		if err != nil {
			t.Fatalf("refreshed token of %s: %v", text, err)
		}
		if d := cmp.Diff(g, again, cmpopts.EquateEmpty(), cmpopts.IgnoreTypes(time.Time{}), cmpopts.IgnoreFields(Grant{}, "RoomConfig")); d != "" {
			t.Fatalf("refreshed token of %s differs:\n%s", text, d)
		}
	})
}
