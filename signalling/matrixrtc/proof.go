package matrixrtc

import (
	"net/http"
	"time"

	"callserver/signalling/homeserver"
)

// A door is one way to come to the authoriser: what requests look like there, and what proves whose they are. What
// follows the proof is the same behind all of them: [Authoriser.enter], then the leave that is delegated, then the token.
type door struct {
	cors  cors
	parse func(body []byte) (*request, error)
	prove func(a *Authoriser, r *http.Request, q *request, now time.Time) (proof, error)
}

var (
	doorSFUGet   = door{tokenCORS, parseSFUGet, (*Authoriser).proveByOpenID}
	doorGetToken = door{tokenCORS, parseGetToken, (*Authoriser).proveByOpenID}
)

// A way is how a user was proven.
type way uint8

const (
	byOpenID     way = iota // the user's homeserver answers for an OpenID token
	byHomeserver            // the user's homeserver hands the request on (MSC4512)
	byToken                 // the user's homeserver knows the caller's access token
	bySignature             // the user's homeserver signed the request, or another one says so that handed it on
)

func (w way) String() string {
	return [...]string{"openid", "homeserver", "token", "signature"}[w]
}

// A proof says who asks, beyond doubt.
type proof struct {
	user  string
	way   way
	token openIDToken // byOpenID only: it can be shown to us again

	caller *homeserver.Agent // byToken only: asks in the caller's own name, for as long as the request lasts
}

// server is the homeserver of the user.
func (p proof) server() string { return homeserver.ServerOf(p.user) }

// proveByOpenID asks the homeserver that the token names. Users of homeservers that get nothing here cost no lookup.
func (a *Authoriser) proveByOpenID(r *http.Request, q *request, now time.Time) (proof, error) {
	if err := a.welcome(q.openID.ServerName, now); err != nil {
		return proof{}, err
	}
	user, err := a.options.Directory.User(r.Context(), q.openID.ServerName, q.openID.AccessToken, now)
	if err != nil {
		a.tell("openid token not verified", q.openID.ServerName, err)
		return proof{}, &refusal{status: http.StatusUnauthorized, code: "M_UNAUTHORIZED", text: "Your homeserver does not vouch for you", err: err}
	}
	if q.claimedUser != "" && q.claimedUser != user {
		return proof{}, &refusal{status: http.StatusUnauthorized, code: "M_UNAUTHORIZED", text: "The token is not that of the claimed user"}
	}
	return proof{user: user, way: byOpenID, token: q.openID}, nil
}

// welcome refuses users of homeservers that get nothing here, whoever they are.
func (a *Authoriser) welcome(server string, now time.Time) error {
	if err := a.permitted(server); err != nil {
		return err
	}
	if _, full := a.homeservers[server]; !full && a.options.Remote != RemoteSubscribe {
		a.tell("user of an unlisted homeserver refused", server, nil)
		return refuseUnlisted()
	} else if !full { // its answer is asked for at the word of anybody
		return a.limits.ofServer(server, now)
	}
	return nil
}
