// A Roster sets the members of a call, as events in its Matrix room name them, beside the participants who are there.
// Package roster owns what follows where the two differ: it clears the memberships of participants who are gone and did
// not say so, and withholds what participants publish whom no membership names.
// It never takes anybody out of a call, decides nothing about who gets in, and knows no media.
//
// # When a membership is cleared
//
// Only if all of this holds (rules of the MatrixRTC specification, and of docs/adr/0014):
//
//   - its user is one of a configured homeserver's;
//   - the transport that it publishes on is this server, by the exact service URL;
//   - its participant is not here, under any identity that the membership could mean, and has been gone for the resume
//     window: for 90 s if it never came, and not before clients had time to return after a restart of this server;
//     or the membership has expired;
//   - the event is still the same when it is read again just before the write: who rejoins sends a new one.
//
// A leave that was delegated to this server goes first (package leave); this is its safety net.
//
// # When a participant is withheld
//
// Members announce themselves when they connect. One who publishes and whom no event names after the grace period is not
// forwarded until one does. It is not removed, and where nobody can tell, it is forwarded.
package roster

import (
	"math"
	"time"

	"callserver/signalling/matrixrtc/member"
)

// How long things take.
const (
	// DefaultGrace is how long a participant may publish before its membership is seen.
	DefaultGrace = 15 * time.Second
	// comingTime is how long a client may take to connect after it got its token or sent its membership.
	comingTime = 90 * time.Second
	// returnTime is how long clients may take to come back after a restart of this server.
	returnTime = 30 * time.Second
	// lossTime is how long a client may take to come back after its connection was given up, which comes after the
	// resume window of its edge: 20 s after the last packet. Together they stay below 30 s.
	lossTime = 3 * time.Second
	// partTime is the same after a session that ended otherwise. Clients that say goodbye may mean to connect anew, which
	// takes them seconds on a busy machine, and those that do leave take their membership back themselves.
	partTime = 15 * time.Second
	// leaveTime is for how long a delegated leave may be on its way before the membership is cleared all the same.
	leaveTime = 30 * time.Second

	heldRetry  = time.Second // how soon to look again whether a delegated leave has arrived
	firstRetry = time.Second
	maxRetry   = time.Minute      // between attempts to clear a membership
	maxRecheck = 15 * time.Second // between looks for the membership of one who is withheld
)

// Why a session ended.
type Why uint8

// The reasons, as far as they matter here.
const (
	Lost     Why = iota // the connection, and the client did not resume it in time
	Parted              // by the client's word, or ours: it may come at once
	Shutdown            // this server goes: clients come back when it does
)

// A Key is a participant of the media server.
type Key struct{ Call, Identity string }

// A Stay is one device's part in one call.
type Stay struct {
	Room   string // Matrix room id
	Call   string // the media server's name for it
	User   string
	Device string
}

// A Presence is one session of a participant, or one that is about to come, with a token of our authoriser.
type Presence struct {
	Stay             // without a Device if the client named none
	Slot      string // empty if it is not known
	Member    string // id of the membership, if the client named it
	Identity  string
	Session   string // empty for one who is about to come
	Publishes bool   // it may
}

// A Record is a stay, as it is stored.
type Record struct {
	Stay
	Slot       string
	Identities []string // under which the participant may be at the media server
}

// A Change is to be stored: a record as it is now, or that it is over.
type Change struct {
	Record Record
	Over   bool
}

// A Withhold is to be told to the media server.
type Withhold struct {
	Call, Session string
	On            bool
}

// slotOf is the slot that a call is of, as far as its name says.
func slotOf(s Stay, slot string) string {
	if slot == "" && member.RoomName(s.Room, member.SlotRoom) == s.Call {
		return member.SlotRoom
	}
	return slot
}

// identities are all under which a device may be at the media server, for the ids of its membership; those that the
// client did not name are the ones that clients use by default.
func identities(user, device string, ids ...string) []string {
	plain := member.DeviceIdentity(user, device)
	all := append(member.Identities(user, device, ""), member.UnlinkedIdentity(user, plain))
	for _, id := range ids {
		if id != "" && id != plain {
			all = append(all, member.MemberIdentity(user, device, id), member.UnlinkedIdentity(user, id))
		}
	}
	return all
}

// backoff is how long to wait after so many failures in a row: 1 s, half as much again each time, up to most.
func backoff(failures int, most time.Duration) time.Duration {
	return min(most, time.Duration(float64(firstRetry)*math.Pow(1.5, float64(min(max(failures, 1), 20)-1))))
}
