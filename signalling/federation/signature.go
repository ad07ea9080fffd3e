package federation

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"callserver/internal/canonical"
)

const algorithm = "ed25519:"

// A Message is the part of a request between servers that is signed (server-server API, "Request Authentication").
type Message struct {
	Method      string
	URI         string         // path and query, as on the wire
	Destination string         // the homeserver that it is for
	Content     map[string]any // of the kinds of package canonical; nil if there is no body
}

// signed is the text under the signature.
func (m Message) signed(origin string) []byte {
	object := map[string]any{"method": m.Method, "uri": m.URI, "origin": origin, "destination": m.Destination}
	if m.Content != nil {
		object["content"] = m.Content
	}
	return canonical.Append(nil, object)
}

// A SigningKey is the key by which other homeservers know one of ours. It is read-only, and never prints its secret.
type SigningKey struct {
	id      string
	private ed25519.PrivateKey
}

// keyVersion is what follows the algorithm in the id of a key. Synapse never checked that it has only letters, digits
// and underscores.
var keyVersion = regexp.MustCompile(`^[a-zA-Z0-9_+/.-]{1,64}$`)

// ParseSigningKey reads the key file of a homeserver: Synapse's signing.key, of which the first line counts, or
// Dendrite's matrix_key.pem. Errors do not show what is in it.
func ParseSigningKey(text []byte) (*SigningKey, error) {
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return parsePEM(text)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 || words[0]+":" != algorithm {
			return nil, errors.New("not a signing key: a line should be \"ed25519 NAME KEY\"")
		}
		seed, err := decode(words[2])
		if err != nil {
			return nil, errors.New("not a signing key: the third word of a line should be base64")
		}
		return newSigningKey(algorithm+words[1], seed)
	}
	return nil, errors.New("not a signing key: the file is empty")
}

func parsePEM(text []byte) (*SigningKey, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("not a signing key: no block MATRIX PRIVATE KEY")
		}
		if block.Type == "MATRIX PRIVATE KEY" {
			return newSigningKey(block.Headers["Key-ID"], block.Bytes)
		}
	}
}

func newSigningKey(id string, seed []byte) (*SigningKey, error) {
	version, ok := strings.CutPrefix(id, algorithm)
	if !ok || !keyVersion.MatchString(version) {
		return nil, errors.New("not a signing key: its id is not like ed25519:a_AbCd")
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("not a signing key: it has %d bytes, not %d", len(seed), ed25519.SeedSize)
	}
	return &SigningKey{id, ed25519.NewKeyFromSeed(seed)}, nil
}

// ID is the id of the key, as the homeserver publishes it.
func (k *SigningKey) ID() string { return k.id }

func (k *SigningKey) String() string          { return k.id }
func (k *SigningKey) GoString() string        { return k.id }
func (k *SigningKey) LogValue() slog.Value    { return slog.StringValue(k.id) }
func (k *SigningKey) sign(text []byte) string { return encode(ed25519.Sign(k.private, text)) }

// Sign makes the claim that a message is origin's.
func (k *SigningKey) Sign(origin string, m Message) Claim {
	return Claim{Origin: origin, Destination: m.Destination, Key: k.id, Signature: k.sign(m.signed(origin))}
}

func encode(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// decode is liberal about padding.
func decode(text string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
}
