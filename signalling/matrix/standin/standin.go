// A Stand-in is a member of a room's call in whose place no Matrix client speaks: a device that this server pretends, of a
// user for whom it may act, so that Matrix clients show and hear the participant behind it.
// Package standin owns its membership: the event, the leave that is owed for it, and the grant of its participant.
// It never asks whether somebody wants to be stood in for, and never touches media.
//
// # How a stand-in ends
//
// Like any member. Clear takes its membership back. If this server is gone before that, the homeserver sends the leave
// that was scheduled (where it has delayed events); and when this server is back and the participant is not, the roster
// clears the membership, as it does for every device.
package standin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/leave"
	"callserver/signalling/matrixrtc/member"
	"callserver/signalling/token"
)

// owedAfter is how long after the last sign of this server the homeserver sends the leave.
const owedAfter = 30 * time.Second

// typeMember is the state event of a membership.
var typeMember = event.Type{Type: member.TypeState, Class: event.StateEventType}

// A Place is where somebody is stood in for, and as what.
type Place struct {
	Homeserver *homeserver.Homeserver
	Room       id.RoomID
	User       id.UserID // of the homeserver; one for whom this server may act
	For        id.UserID // in whose place the user is there; empty if it is there for itself
	Device     string    // pretended: no device of the user has this id
	Name       string    // for clients that do not look it up by the user
	Intent     string    // audio or video
}

// Identity is under which the participant must be at the media server.
func (p Place) Identity() string { return member.DeviceIdentity(string(p.User), p.Device) }

// Grant lets the participant in.
func (p Place) Grant(verified time.Time) token.Grant {
	g := token.Join(member.RoomName(string(p.Room), member.SlotRoom), p.Identity())
	g.Name, g.Kind, g.FullAccess, g.CanPublishData = p.Name, "bridge", true, false
	g.Origin = token.Origin{User: string(p.User), For: string(p.For), Conversation: string(p.Room), Device: p.Device, Verified: verified}
	return g
}

// Rules are where this server is, and who takes over leaves.
type Rules struct {
	Service  string                                        // our service URL, as memberships name it
	Delegate func(context.Context, leave.Delegation) error // takes over a scheduled leave, and sends it when the participant is gone; nil: nobody does
}

// Declare makes the membership known to the room, and returns its event. Where the homeserver has delayed events, a leave is
// scheduled before. Whatever becomes of it, Clear ends it.
func (r Rules) Declare(ctx context.Context, p Place) (id.EventID, error) {
	agent, err := p.Homeserver.As(p.User)
	if err != nil {
		return "", err
	}
	key, content := member.Declare(member.Declaration{
		User: string(p.User), Device: p.Device, Room: string(p.Room), Service: r.Service, Intent: p.Intent,
	})
	r.owe(ctx, agent, p, key) // without it the roster clears up
	sent, err := agent.SendState(ctx, p.Room, typeMember, key, content)
	if err != nil {
		return "", fmt.Errorf("declare a member for %s: %w", p.User, err)
	}
	return sent, nil
}

// owe schedules the leave, and has it put off for as long as the participant is here.
func (r Rules) owe(ctx context.Context, agent homeserver.Agent, p Place, key string) {
	if r.Delegate == nil {
		return
	}
	delay, err := agent.DelayState(ctx, p.Room, typeMember, key, struct{}{}, owedAfter)
	if err != nil {
		return
	}
	err = r.Delegate(ctx, leave.Delegation{
		User: string(p.User), Device: p.Device, Room: string(p.Room), Slot: member.SlotRoom, Delay: string(delay), Length: owedAfter,
	})
	if err != nil { // nobody would put it off: it must not be sent in the middle of the call
		_ = agent.CancelDelayed(ctx, delay)
	}
}

// Clear takes back the membership that a place had, of this run or an earlier one; for a user who has left the room the bot does. Twice is fine.
func Clear(ctx context.Context, p Place) error {
	agent, err := p.Homeserver.As(p.User)
	if err != nil {
		return err
	}
	key := member.StateKeys(string(p.User), p.Device, member.SlotRoom)[0]
	_, err = agent.SendState(ctx, p.Room, typeMember, key, struct{}{})
	if homeserver.Code(err) == "M_FORBIDDEN" { // not in the room any more: nobody counts it, but whoever stays may clear it
		if agent, err = p.Homeserver.As(p.Homeserver.Sender()); err == nil {
			_, err = agent.SendState(ctx, p.Room, typeMember, key, struct{}{})
		}
	}
	if homeserver.Code(err) == "M_FORBIDDEN" || errors.Is(err, homeserver.ErrNoPrivilege) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("withdraw the member for %s: %w", p.User, err)
	}
	return nil
}
