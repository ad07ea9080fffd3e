package leave

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// A Delegation is what a client asks for.
type Delegation struct {
	User   string // verified
	Device string // claimed
	Member string // id of the membership; empty on the older endpoint
	// Unlinked means that the participant's identity is that of the user and the membership alone; the device may be empty.
	Unlinked bool
	Room     string // Matrix room id; its membership is verified
	Slot     string
	Delay    string
	Length   time.Duration // as the client says; 0 if it does not
}

// job is for the identity by which readers know the member; others may be that of its participant, too.
func (d *Delegation) job(server string) Job {
	plain := member.DeviceIdentity(d.User, d.Device)
	identities := member.Identities(d.User, d.Device, d.Member)
	if d.Unlinked {
		identities = []string{member.UnlinkedIdentity(d.User, d.Member)}
	} else if d.Member != "" && d.Member != plain { // the membership is a sticky event, whose readers expect the hash
		hashed := identities[len(identities)-1]
		identities = []string{hashed, plain}
	}
	return Job{
		Server: server, User: d.User, Delay: d.Delay, Length: d.Length,
		Room: member.RoomName(d.Room, d.Slot), Identities: identities,
	}
}

// Delegate takes a leave over, durably. It fails with ErrNotReal or ErrForeign.
//
// A client that probed when the trial was good relies on us whatever happened since. So its leave is taken over if it can
// be restarted, which proves more than a trial, and unseen if the homeserver does not answer now but passed the trial
// within the last hour.
func (k *Keeper) Delegate(ctx context.Context, d Delegation) error {
	err := k.delegate(ctx, d)
	if err != nil {
		k.counters.refused.Add(1)
		return err
	}
	k.counters.delegated.Add(1)
	return nil
}

func (k *Keeper) delegate(ctx context.Context, d Delegation) error {
	server := homeserver.ServerOf(d.User)
	h, t := k.options.Homeservers[server], k.trials[server]
	if h == nil {
		return ErrNotReal
	}
	job := d.job(server)
	began := time.Now()
	scheduled, err := h.Scheduled(ctx, d.User, d.Delay)
	switch {
	case err == nil && !d.matches(scheduled):
		return ErrForeign
	case err == nil:
		job.Length = scheduled.Delay
	case homeserver.Code(err) == "M_NOT_FOUND":
		return ErrForeign
	case errors.Is(err, homeserver.ErrNoPrivilege), homeserver.Unrecognized(err):
		// Nobody tells whose it is. Whoever knows the id may manage it anyway: it is a secret.
	case !errors.Is(err, homeserver.ErrUnavailable):
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if job.Length == 0 {
		return fmt.Errorf("%w: neither the client nor the homeserver says how long the delay is - set the wide registration", ErrNotReal)
	}
	err = h.Do(ctx, Restart, d.User, d.Delay)
	if t.bar(refused(err)) {
		k.log.Warn("delayed leaves cannot be delegated: the homeserver lets only their users manage them - set the wide registration", "homeserver", server, "err", err)
	}
	switch {
	case err == nil:
		job.Restarted = began
	case homeserver.Code(err) == "M_NOT_FOUND":
		return ErrForeign
	case refused(err), !t.lately(time.Now()):
		return ErrNotReal
	default: // restarted as soon as it can be
		job.Restarted = began.Add(-min(max(job.Length, minLength), maxLength) * 4 / 5)
	}
	k.clerk.Do(func(now time.Time) { k.book.Add(job, now) })
	return k.clerk.Save(ctx)
}

// matches reports whether a delayed event is the leave of this very member: nobody may have another event of theirs
// kept from being sent, or sent early, by us.
func (d *Delegation) matches(s homeserver.Scheduled) bool {
	if s.Room != d.Room {
		return false
	}
	_, err := member.Parse(member.Event{Type: s.Type, StateKey: s.StateKey, Sender: d.User, Content: content(s.Content)})
	if !errors.Is(err, member.ErrLeft) {
		return false
	}
	if s.StateKey == nil {
		return true
	}
	if d.Device == "" {
		user, ok := member.UserOf(*s.StateKey)
		return ok && user == d.User
	}
	return member.KeyOf(*s.StateKey, d.User, d.Device)
}

func content(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}
