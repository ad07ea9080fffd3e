package token

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// Leeway is how far the clocks of issuer and server may differ.
	Leeway = time.Minute
	// MaxSize is the longest token that Verify looks at, in bytes.
	MaxSize = 256 << 10
	// refreshLife is the shortest life of a refreshed token: longer than the five minutes between two refreshes.
	refreshLife = 10 * time.Minute
)

// What is wrong with a token; errors of Verify wrap exactly one of them.
var (
	ErrMalformed   = errors.New("token is malformed")
	ErrTooLarge    = errors.New("token is too large")
	ErrUnknownKey  = errors.New("token is signed with an unknown key")
	ErrSignature   = errors.New("token signature does not verify") // also: any algorithm but HS256
	ErrExpired     = errors.New("token has expired")
	ErrNotYetValid = errors.New("token is not valid yet")
)

// Keys holds the shared secrets by key id. Safe for concurrent use as long as nobody writes to the map.
type Keys map[string]string

// Verify checks signature and time and returns what the token grants. It accepts what LiveKit's server SDKs
// issue: JWT (RFC 7519) with HS256, key id in iss, expiry mandatory. It does not ask for an identity or a room:
// tokens for server APIs have none.
func (k Keys) Verify(raw string, now time.Time) (Grant, error) {
	if len(raw) > MaxSize {
		return Grant{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(raw), MaxSize)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(Leeway),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	c := claims{}
	_, err := parser.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) {
		secret := k[c.Issuer]
		if secret == "" { // an empty secret would let anybody sign
			return nil, ErrUnknownKey
		}
		return []byte(secret), nil
	})
	if err != nil {
		return Grant{}, verdict(err)
	}
	return c.grant(), nil
}

// verdict says in our words which check failed. None of the texts repeats a part of the token.
func verdict(err error) error {
	switch {
	case errors.Is(err, ErrUnknownKey):
		return ErrUnknownKey
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return ErrSignature
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return fmt.Errorf("%w: no expiry", ErrMalformed)
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrExpired
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return ErrNotYetValid
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return ErrSignature
	default:
		return ErrMalformed
	}
}

// Mint signs g with the named key, valid from now for ttl. The times have a resolution of one second.
func (k Keys) Mint(key string, g Grant, ttl time.Duration, now time.Time) (string, error) {
	secret := k[key]
	if secret == "" {
		return "", fmt.Errorf("mint token with key %q: %w", key, ErrUnknownKey)
	}
	if ttl < time.Second {
		return "", fmt.Errorf("mint token: a life of %s is too short", ttl)
	}
	if !utf8.ValidString(g.Identity + g.Room + g.Origin.User + g.Origin.Conversation) { // JSON would silently make it another one
		return "", errors.New("mint token: identity, room or origin is not UTF-8")
	}
	c := claimsOf(g)
	c.RegisteredClaims = jwt.RegisteredClaims{
		Issuer:    key,
		Subject:   g.Identity,
		NotBefore: jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}
	raw, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	if len(raw) > MaxSize {
		return "", fmt.Errorf("mint token: %w: %d bytes, at most %d", ErrTooLarge, len(raw), MaxSize)
	}
	return raw, nil
}

// Refresh mints a token with the grants of a verified one, signed with the same key and valid for what is left of
// its life, at least ten minutes.
func (k Keys) Refresh(g Grant, now time.Time) (string, error) {
	return k.Mint(g.Key, g, max(refreshLife, g.Expires.Sub(now)), now)
}

// String lists the key ids; secrets never show.
func (k Keys) String() string {
	return "keys[" + strings.Join(slices.Sorted(maps.Keys(k)), " ") + "]"
}

// LogValue implements [slog.LogValuer] so that no log handler sees a secret.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
