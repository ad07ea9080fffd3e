package federation

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"callserver/internal/canonical"
)

const (
	pathKeys = "/_matrix/key/v2/server"

	keysLife  = 24 * time.Hour   // how long published keys are used at most
	keysPause = 30 * time.Second // between questions to one server about keys that it did not have
	maxKeys   = 4096             // servers
)

// A keyring is what one homeserver publishes.
type keyring struct {
	keys  map[string]ed25519.PublicKey // by id; only those in use, none that it retired
	until time.Time                    // when they are asked for again
	asked time.Time                    // the last time, with or without success
}

// key finds a key of a homeserver by its id, among those known or by asking that very server.
func (d *Directory) key(ctx context.Context, name, id string, now time.Time) (ed25519.PublicKey, error) {
	ring, known := d.keys.Get(name, now)
	if key, ok := ring.keys[id]; ok {
		return key, nil
	}
	if known && now.Sub(ring.asked) < keysPause {
		return nil, fmt.Errorf("%s publishes no key %.80q", name, id)
	}
	found, err, _ := d.fetches.Do(name, func() (any, error) { return d.fetchKeys(ctx, name, now) })
	if err != nil {
		return nil, err
	}
	if key, ok := found.(keyring).keys[id]; ok {
		return key, nil
	}
	return nil, fmt.Errorf("%s publishes no key %.80q", name, id)
}

// fetchKeys goes on for at most five seconds, even when the client is gone: others may be waiting. When it fails, keys
// that are known stay.
func (d *Directory) fetchKeys(ctx context.Context, name string, now time.Time) (keyring, error) {
	if d.isSilent(name, now) {
		d.spared.Add(1)
		return keyring{}, errSpared
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
	defer cancel()
	d.lookups.Add(1)
	status, body, err := d.call(ctx, name, ask{method: http.MethodGet, path: pathKeys}, now)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the answer is %d", status)
	}
	var ring keyring
	if err == nil {
		ring, err = parseKeys(body, name, now)
	}
	if err != nil {
		d.failures.Add(1)
		old, _ := d.keys.Get(name, now)
		old.asked = now
		d.keys.Put(name, old, now, latest(old.until, now.Add(keysPause)))
		return keyring{}, fmt.Errorf("keys of %s: %w", name, err)
	}
	ring.asked = now
	d.keys.Put(name, ring, now, ring.until)
	return ring, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// parseKeys reads what a server publishes (server-server API, "Publishing Keys"). It must be about that server, valid now, and signed by at least one of the keys in it; a wrong signature spoils it all.
func parseKeys(body []byte, name string, now time.Time) (keyring, error) {
	v, err := canonical.Parse(body)
	if err != nil {
		return keyring{}, err
	}
	object, _ := v.(map[string]any)
	ms, _ := object["valid_until_ts"].(int64)
	until := time.UnixMilli(min(ms, now.Add(keysLife).UnixMilli()))
	if object["server_name"] != name {
		return keyring{}, fmt.Errorf("they are those of another server: %.300q", object["server_name"])
	}
	if !until.After(now) {
		return keyring{}, fmt.Errorf("they were valid until %s", until.UTC().Format(time.RFC3339))
	}
	ring := keyring{keys: make(map[string]ed25519.PublicKey), until: until}
	published, _ := object["verify_keys"].(map[string]any)
	for id, entry := range published {
		fields, _ := entry.(map[string]any)
		text, _ := fields["key"].(string)
		key, err := decode(text)
		if err == nil && len(key) == ed25519.PublicKeySize && strings.HasPrefix(id, algorithm) {
			ring.keys[id] = key
		}
	}
	signatures, _ := object["signatures"].(map[string]any)
	own, _ := signatures[name].(map[string]any)
	delete(object, "signatures")
	delete(object, "unsigned")
	text := canonical.Append(nil, object)
	signed := false
	for id, key := range ring.keys {
		signature, there := own[id].(string)
		if !there {
			continue
		}
		if !verifies(key, text, signature) {
			return keyring{}, fmt.Errorf("the signature by %.80q is wrong", id)
		}
		signed = true
	}
	if !signed {
		return keyring{}, errors.New("they are not signed by any of themselves")
	}
	return ring, nil
}

func verifies(key ed25519.PublicKey, text []byte, signature string) bool {
	raw, err := decode(signature)
	return err == nil && len(raw) == ed25519.SignatureSize && ed25519.Verify(key, text, raw)
}

// Verify tells whether a claim about a message is true: nil means that the homeserver claim.Origin sent it, and to
// m.Destination. It may ask that homeserver for its keys, and nobody else. A claim without a destination is taken for
// one to m.Destination, which is under the signature in any case.
func (d *Directory) Verify(ctx context.Context, c Claim, m Message, now time.Time) error {
	if c.Destination != "" && c.Destination != m.Destination {
		return fmt.Errorf("the request is for %.300q, not for %s", c.Destination, m.Destination)
	}
	if !strings.HasPrefix(c.Key, algorithm) {
		return fmt.Errorf("key %.80q is none of ed25519", c.Key)
	}
	key, err := d.key(ctx, c.Origin, c.Key, now)
	if err != nil {
		return fmt.Errorf("find the key of a request: %w", err)
	}
	if !verifies(key, m.signed(c.Origin), c.Signature) {
		return fmt.Errorf("the signature that %s should have made is wrong", c.Origin)
	}
	return nil
}
