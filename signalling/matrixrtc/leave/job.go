// A Leave is a delayed event that ends a client's membership of a call when the client cannot do so itself (MSC4140).
// Package leave owns the leaves that clients delegate to this server: it restarts them while the participant is here,
// sends them when it is gone, cancels those that newer ones replace, and remembers them over a restart.
// It never speaks to clients, decides nothing about who gets in, and never logs a delay id, which is a secret.
//
// # What can be relied on
//
// Delegation is accepted only for homeservers on which a delayed event of our own was scheduled, restarted and cancelled
// within the last ten minutes ([Keeper.Real]): clients that believe us stop restarting for an hour.
package leave

import (
	"math"
	"time"
)

// How long things take.
const (
	// waitTime is how long a client may take to connect after it delegated its leave.
	waitTime = 90 * time.Second
	// returnTime is how long clients may take to come back after a restart of this server.
	returnTime = 30 * time.Second
	// lossTime is how long a client may take to come back after its connection was given up, which comes after the
	// resume window of its edge: 20 s after the last packet. Together they stay well below 30 s.
	lossTime = 3 * time.Second
	// farewellTime is how long a client may take to come back that said goodbye: livekit-client does when it connects
	// anew because nothing else helped, and returns a second later. Who really leaves sends the leave itself; what closes
	// its window does not.
	farewellTime = 2 * time.Second
	// lateTime is for how long after the homeserver should have sent a leave by itself we go on trying.
	lateTime = time.Minute

	minLength = time.Second
	maxLength = 24 * time.Hour

	firstRetry = time.Second
	maxRetry   = time.Minute
)

// Why a participant is gone.
type Why uint8

// The reasons, as far as they matter here.
const (
	Lost     Why = iota // the connection, or somebody took it out: it may come back
	ByItself            // the client said that it leaves
	Shutdown            // this server goes: clients come back when it does
)

// A Key is a participant of the media server.
type Key struct{ Room, Identity string }

// A Fate is what is to become of a delayed event.
type Fate uint8

// The fates. Their numbers are on disk.
const (
	Hold Fate = iota
	Send
	Cancel
)

// A Job is a delegated leave, as it is stored.
type Job struct {
	Server string // of the user
	User   string
	Delay  string        // id of the delayed event: a secret
	Length time.Duration // of its delay

	Room       string   // of the media server
	Identities []string // under which the participant may be there; the first is the one that the job is for

	Restarted time.Time // when the homeserver's clock last began to run, as far as we know
	Fate      Fate
}

func (j *Job) ref() ref { return ref{j.Server, j.Delay} }

// A ref names a delayed event.
type ref struct{ server, delay string }

func (j *Job) key() Key { return Key{j.Room, j.Identities[0]} }

// deadline is when the homeserver sends the event by itself.
func (j *Job) deadline() time.Time { return j.Restarted.Add(j.Length) }

// A Verb is what can be asked of a homeserver about a delayed event.
type Verb uint8

// The verbs of MSC4140.
const (
	Restart Verb = iota + 1
	SendNow
	Forget
)

func (v Verb) String() string { return [...]string{"nothing", "restart", "send", "cancel"}[v] }

// A Task is a request to make now. Its result is told to Book.Result, whatever it is.
type Task struct {
	Verb                Verb
	Server, User, Delay string
}

// A Result is how a request ended.
type Result struct {
	OK    bool
	Gone  bool          // the homeserver does not know the event: it was sent or cancelled
	After time.Duration // what the homeserver said about when to try again; 0 means nothing
}

// backoff is how long to wait after so many failures in a row: 1 s, half as much again each time, at most a minute.
func backoff(failures int) time.Duration {
	return min(maxRetry, time.Duration(float64(firstRetry)*math.Pow(1.5, float64(min(failures, 20)-1))))
}
