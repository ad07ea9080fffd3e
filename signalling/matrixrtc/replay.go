package matrixrtc

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"time"

	"callserver/internal/expiring"
)

const (
	openIDLife = time.Hour // of an OpenID token, at every homeserver
	maxReplays = 100_000   // tokens remembered; beyond it arbitrary ones are forgotten early
)

// A digest stands for a token, or for what it was used for.
type digest [sha256.Size]byte

// replays remember for which device and room each OpenID token was used first. Homeservers answer for a token as often
// as they are asked, so whoever got hold of one could be its user anywhere else. It is kept in memory, as hashes: a restart
// forgets it. Safe for concurrent use.
type replays struct{ first *expiring.Map[digest, digest] }

func newReplays() *replays { return &replays{expiring.New[digest, digest](maxReplays)} }

// check refuses a token whose first use was for another device or room. Clients show one several times for the same: to
// /get_token, then to /sfu/get, where the first is not known.
func (r *replays) check(t openIDToken, device, room string, now time.Time) error {
	use := digestOf(device, room)
	if r.first.First(digestOf(t.ServerName, t.AccessToken), use, now, now.Add(openIDLife)) == use {
		return nil
	}
	return &refusal{
		status: http.StatusUnauthorized, code: "M_UNAUTHORIZED", reason: reasonReplayed,
		text: "The OpenID token was used for another device or room: ask your homeserver for a new one",
	}
}

// digestOf hashes texts so that their borders count.
func digestOf(texts ...string) (d digest) {
	h := sha256.New()
	for _, text := range texts {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(text)))) // a hash never fails
		_, _ = h.Write([]byte(text))
	}
	h.Sum(d[:0])
	return d
}
