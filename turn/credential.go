package turn

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // the scheme of homeservers
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"

	"callserver/internal/expiring"
)

// JoinLife is how long a credential of a join answer lets its client allocate; what it has allocated by then lives on.
const JoinLife = time.Hour

// afterLife is how long an allocation may be refreshed after its credential's time: what maxAge ends would be over anyway.
const afterLife = maxAge

// joinMark begins the names of who was let into a call. Users of Matrix begin with an @.
const joinMark = "join:"

// maxName bounds the name in a credential, in bytes, as Matrix bounds user ids.
const maxName = 255

// What is remembered of which secret a homeserver used: longer than between two requests of a client that is connected.
const (
	proofLife = time.Hour
	maxProofs = 20_000 // usernames
)

// A Credential lets a client allocate until its time is over.
type Credential struct{ Username, Password string }

// keys make and check credentials.
type keys struct {
	// join is made anew at every start: what it lets in are allocations of this process, and whoever loses the process joins anew and gets a
	// credential of the next one. So nothing is to be configured, stored, or kept secret when it is copied.
	join    [32]byte
	secrets [][]byte
	proven  *expiring.Map[string, int] // usernames, with the secret that one is known to be signed with
}

func newKeys(secrets []string) (k keys) {
	_, _ = rand.Read(k.join[:]) // never fails (crypto/rand)
	for _, s := range secrets {
		k.secrets = append(k.secrets, []byte(s))
	}
	k.proven = expiring.New[string, int](maxProofs)
	return k
}

// Credential is one for who was let into a call: it reaches the media of this server, and nothing else. name stays the same for one client.
func (r *Relay) Credential(name string, now time.Time) Credential {
	username := strconv.FormatInt(now.Add(JoinLife).Unix(), 10) + ":" + joinMark + name
	return Credential{username, r.keys.joinPassword(username)}
}

func (k *keys) joinPassword(username string) string {
	mac := hmac.New(sha256.New, k.join[:])
	mac.Write([]byte(username))
	return base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// sharedPassword is what a homeserver makes of turn_shared_secret (draft-uberti-behave-turn-rest-00 §2.2).
func sharedPassword(secret []byte, username string) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// A claim is what a username says.
type claim struct {
	user  string // without the time
	scope scope
	until time.Time
}

// read takes a username apart: the time until when it holds, in seconds since 1970, and who it is.
func read(username string) (c claim, ok bool) {
	seconds, name, found := strings.Cut(username, ":")
	until, err := strconv.ParseInt(seconds, 10, 64)
	if !found || err != nil || name == "" || len(name) > maxName {
		return c, false
	}
	return claim{user: name, scope: scopeOf(name), until: time.Unix(until, 0)}, true
}

// scopeOf is what a user has a credential for.
func scopeOf(user string) scope {
	if strings.HasPrefix(user, joinMark) {
		return joins
	}
	return homeservers
}

// key is what the client must have signed with, nil if nobody can have.
func (k *keys) key(username string, c claim, now time.Time) []byte {
	if c.scope == joins {
		return pion.GenerateAuthKey(username, realm, k.joinPassword(username))
	}
	if len(k.secrets) == 0 {
		return nil
	}
	secret := k.secrets[0]
	if proven, ok := k.proven.Get(username, now); ok {
		secret = k.secrets[proven]
	}
	return pion.GenerateAuthKey(username, realm, sharedPassword(secret, username))
}

// several reports whether it must be found out which of the secrets a homeserver used.
func (k *keys) several() bool { return len(k.secrets) > 1 }

// learn finds out with which secret a request is signed, and notes it. Pion asks for one key only, and then it is too late to try others: a browser
// that is refused once gives up.
func (k *keys) learn(message []byte, now time.Time) {
	m := &stun.Message{Raw: message}
	if m.Decode() != nil || !m.Contains(stun.AttrMessageIntegrity) {
		return
	}
	var name stun.Username
	if name.GetFrom(m) != nil {
		return
	}
	username := name.String()
	if c, ok := read(username); !ok || c.scope != homeservers {
		return
	}
	for i, secret := range k.secrets {
		if stun.MessageIntegrity(pion.GenerateAuthKey(username, realm, sharedPassword(secret, username))).Check(m) == nil {
			k.proven.Put(username, i, now, now.Add(proofLife))
			return
		}
	}
}
