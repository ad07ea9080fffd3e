package matrixrtc

import (
	"net/netip"
	"time"
)

const (
	refusalLife = 24 * time.Hour // that a user's last refusal is remembered
	maxRefusals = 10_000
)

// A Refusal is why a user got no token, as the operator's record has it. It names the user's network: show it to that
// user and the operator only.
type Refusal struct {
	At     time.Time
	Reason string // one of Reasons
	Words  string // what it means and what helps, as sentences
	Room   string // the Matrix room
	Device string // as the client said
	Addr   netip.Addr
}

// LastRefusal returns the last refusal of a user within a day, since the start. Requests of which nobody knows whose they
// are, are nobody's.
func (a *Authoriser) LastRefusal(user string) (Refusal, bool) {
	return a.refusals.Get(user, a.options.Now())
}

// remember keeps a refusal for the user to ask about. Who is only told to keep its delayed leave was kept out of nothing.
func (a *Authoriser) remember(why reason, q *request, addr netip.Addr) {
	if q == nil || q.proof.user == "" || why == reasonDelegation {
		return
	}
	now := a.options.Now()
	a.refusals.Put(q.proof.user, Refusal{
		At: now, Reason: string(why), Words: words[why], Room: q.room, Device: q.device, Addr: addr,
	}, now, now.Add(refusalLife))
}

// words are the reasons for somebody who knows nothing of them.
var words = map[reason]string{
	reasonMalformed:    "Your client's request could not be understood. Update the client.",
	reasonAddress:      "Too many requests came from your network within a minute. Wait a minute and join again.",
	reasonServer:       "Too many requests came from users of your homeserver within a minute. Wait a minute and join again.",
	reasonUser:         "Your clients sent too many requests within a minute. Wait a minute and join again.",
	reasonUnlisted:     "This server admits only users of its own homeservers, and yours is none of them.",
	reasonDenied:       "The operator of this server does not admit users of your homeserver.",
	reasonBarred:       "The room does not admit your homeserver: its server ACL denies it. A moderator of the room can change that.",
	reasonUnvouched:    "Your homeserver did not confirm who you are. Sign in again, and if that does not help ask its operator.",
	reasonForged:       "The request claimed to come from your homeserver and did not prove it. Ask the operator of your homeserver.",
	reasonReplayed:     "Your client showed the same proof for another device or room. Restart the client and join again.",
	reasonUnheld:       "The call has not begun here: somebody of this server's own homeservers must be in it first.",
	reasonElsewhere:    "The media server of another homeserver refused you. Ask there.",
	reasonOutside:      "You were not in the Matrix room of the call, or your membership had just changed. Join the room, then the call.",
	reasonUnverifiable: "This server had no way to see whether you are in the room. Ask its operator, or invite its bot into the room.",
	reasonUnavailable:  "Your homeserver did not answer when it was asked whether you are in the room. Try again in a moment.",
	reasonFull:         "The call was full, or you were in as many calls as one person may be.",
	reasonLocked:       "A moderator had locked the call. Ask one of them for !call unlock.",
	reasonClosing:      "This server was about to restart. Join again.",
	reasonInternal:     "Something went wrong on this server. Tell its operator when it was.",
	reasonOther:        "Your client's request was refused. Tell the operator of this server when it was.",
}
