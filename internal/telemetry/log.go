package telemetry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// LogOptions say what is written and how.
type LogOptions struct {
	Level       slog.Level
	JSON        bool // in place of text
	Identifiers bool // users, rooms, devices and addresses of clients as they are; otherwise pseudonyms
}

// Logger writes what is at least as important as the level to w, a line each. It is the one place that keeps who, where
// and from which address out of the log: every attribute of every line passes here. Secrets in URLs are blanked always.
func Logger(w io.Writer, o LogOptions) *slog.Logger {
	h := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: blank}
	if !o.Identifiers {
		h.ReplaceAttr = newVeil().attribute
	}
	if o.JSON {
		return slog.New(slog.NewJSONHandler(w, h))
	}
	return slog.New(slog.NewTextHandler(w, h))
}

// personal are the keys of attributes whose whole value says who, where or from which address.
var personal = []string{
	"room", "conversation", "user", "sender", "identity", "device", "member", "client", "peer", "label",
	"addr", "address", "remote", "candidate",
}

// open are the keys of attributes that speak of this server: their values stay as they are.
var open = []string{slog.TimeKey, slog.LevelKey, slog.SourceKey, "at", "version", "stack", "homeserver"}

// What gives somebody away inside other texts, above all those of errors.
var (
	// A Matrix user, room or alias, as it stands in texts and in URLs, with what a device adds to it. Matrix, Identifier Grammar.
	matrixID = regexp.MustCompile(`(?:[@!#]|%40|%21|%23)[^\s:@!"'/?&<>(),\[\]]+?(?::|%3A)[A-Za-z0-9.\-]+(?::[^\s"'/?&<>(),\]]*[^\s"'/?&<>(),\].:;])?`)
	// A room of version 12 and later has no server; the names of calls and hashed identities are base64 of 32 bytes, too.
	hashed = regexp.MustCompile(`!?[A-Za-z0-9+/_\-]{43,}`)
	// What may be an address, with or without a port.
	addresses = regexp.MustCompile(`\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(?:%\w+)?(?:\](?::\d+)?)?|\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?`)
	secret    = regexp.MustCompile(`((?:access_token|join_request|as_token|hs_token)=)[^&\s"']*|(Bearer )[^\s"']+`)
)

// blank takes the tokens out of an attribute.
func blank(_ []string, a slog.Attr) slog.Attr {
	if text, ok := textOf(a.Value); ok && secret.MatchString(text) {
		a.Value = slog.StringValue(secret.ReplaceAllString(text, "$1$2-"))
	}
	return a
}

// A veil makes pseudonyms: the same for the same value, until the program ends. Safe for concurrent use.
type veil struct{ key [32]byte }

func newVeil() *veil {
	v := &veil{}
	_, _ = rand.Read(v.key[:]) // never fails (crypto/rand)
	return v
}

// attribute is slog's ReplaceAttr.
func (v *veil) attribute(_ []string, a slog.Attr) slog.Attr {
	text, ok := textOf(a.Value)
	switch {
	case !ok || text == "" || slices.Contains(open, a.Key):
	case slices.Contains(personal, strings.ToLower(a.Key)):
		a.Value = slog.StringValue(v.pseudonym(text))
	default:
		if scrubbed := v.scrub(text); scrubbed != text {
			a.Value = slog.StringValue(scrubbed)
		}
	}
	return blank(nil, a)
}

// textOf is what a handler would write of a value; not ok for numbers, times and the like, which say nothing of people.
func textOf(v slog.Value) (string, bool) {
	switch v.Kind() {
	case slog.KindString:
		return v.String(), true
	case slog.KindAny:
		return fmt.Sprint(v.Any()), v.Any() != nil
	}
	return "", false
}

// scrub replaces what gives somebody away within a text. Loopback addresses are this machine's own.
func (v *veil) scrub(text string) string {
	text = matrixID.ReplaceAllStringFunc(text, v.pseudonym)
	text = hashed.ReplaceAllStringFunc(text, func(found string) string {
		if len(strings.TrimPrefix(found, "!")) != 43 {
			return found
		}
		return v.pseudonym(found)
	})
	return addresses.ReplaceAllStringFunc(text, func(found string) string {
		addr, ok := parseAddr(found)
		if !ok || addr.IsLoopback() || addr.IsUnspecified() {
			return found
		}
		return v.pseudonym(addr.String())
	})
}

// parseAddr reads an address with or without a port.
func parseAddr(text string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap(), err == nil
}

// pseudonym is short: lines of one run are told apart, and nobody can find the value by trying.
func (v *veil) pseudonym(text string) string {
	mac := hmac.New(sha256.New, v.key[:])
	mac.Write([]byte(text))
	return "~" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:6])
}
