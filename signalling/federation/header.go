package federation

import (
	"errors"
	"fmt"
	"strings"
)

// maxClaim is the longest value of the scheme X-Matrix that is read, in bytes.
const maxClaim = 2048

// A Claim is what an Authorization header of the scheme X-Matrix says (server-server API, "Request Authentication").
// Anybody can write one: [Directory.Verify] tells whether it is true.
type Claim struct {
	Origin      string // the homeserver that is said to send the request
	Destination string // the one that it is for; empty in requests of servers from before 2022
	Key         string // id of the key: ed25519:a_AbCd
	Signature   string // base64
}

var errClaim = errors.New("malformed X-Matrix header")

// Claims reads the values of the Authorization header. Values of other schemes are passed over; one of this scheme that
// is malformed is an error.
func Claims(values []string) ([]Claim, error) {
	var claims []Claim
	for _, value := range values {
		scheme, rest, _ := strings.Cut(strings.TrimLeft(value, " \t"), " ")
		if !strings.EqualFold(scheme, "X-Matrix") {
			continue
		}
		c, err := parseClaim(rest)
		if err != nil {
			return nil, err
		}
		claims = append(claims, c)
	}
	return claims, nil
}

// parseClaim reads the parameters of RFC 9110 §11.4, and values without quotes in which there are colons, as servers
// before 2022 wrote them. Parameters that it does not know pass.
func parseClaim(text string) (c Claim, err error) {
	if len(text) > maxClaim {
		return Claim{}, fmt.Errorf("%w: longer than %d bytes", errClaim, maxClaim)
	}
	fields := map[string]*string{"origin": &c.Origin, "destination": &c.Destination, "key": &c.Key, "sig": &c.Signature}
	for {
		text = strings.TrimLeft(text, " \t,")
		if text == "" {
			break
		}
		name, rest, ok := strings.Cut(text, "=")
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		if !ok || name == "" || strings.ContainsAny(name, " \t,\"") {
			return Claim{}, fmt.Errorf("%w: a parameter has no value", errClaim)
		}
		value, after, err := claimValue(strings.TrimLeft(rest, " \t"))
		if err != nil {
			return Claim{}, err
		}
		text = after
		if field := fields[name]; field == nil {
			continue
		} else if *field != "" || value == "" {
			return Claim{}, fmt.Errorf("%w: %s is there twice, or empty", errClaim, name)
		} else {
			*field = value
		}
	}
	if c.Origin == "" || c.Key == "" || c.Signature == "" {
		return Claim{}, fmt.Errorf("%w: origin, key or sig is missing", errClaim)
	}
	return c, nil
}

// claimValue reads a value in quotes or without, and returns what follows it.
func claimValue(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		value, rest, _ = strings.Cut(text, ",")
		value = strings.TrimRight(value, " \t")
		if strings.ContainsAny(value, " \t\"") {
			return "", "", fmt.Errorf("%w: a value ends in the middle", errClaim)
		}
		return value, rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			rest = strings.TrimLeft(text[i+1:], " \t")
			if rest != "" && rest[0] != ',' {
				return "", "", fmt.Errorf("%w: no comma after a value", errClaim)
			}
			return b.String(), rest, nil
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("%w: a quote is not closed", errClaim)
}

// String is the header's value. None of the parts has a quote or a backslash in it, since Verify compares them with
// names and base64.
func (c Claim) String() string {
	return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, c.Origin, c.Destination, c.Key, c.Signature)
}
