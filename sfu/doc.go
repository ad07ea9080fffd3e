// Package sfu is the room: who is in it, what they publish, who receives what.
//
// It owns rooms, participants, their tracks and permissions, the subscriptions between them, the choice of layers that
// follows from what subscribers ask (and what publishers therefore need to send), active speakers, connection quality and
// the routing of data messages. It never starts a goroutine, reads the clock, opens a socket or knows WebRTC: state goes in
// by call with the time as a parameter, and what the client must be told comes out of a bounded event queue per participant.
//
// # Concurrency
//
// Every exported method is safe for concurrent use. The lock order is Rooms > Room > Source > Sink; a participant's event queue
// is a leaf below Room. Under Room.mu only data changes: whatever reaches another package's callbacks (a key frame request, a data
// write, detaching a sink) is collected in a batch and done after the lock is released.
//
// # Order of events
//
// A participant's events come in the order in which the room changed, with three rules on top. The latest ParticipantInfo takes
// the place of an older one still in the queue, so a publisher's entry always precedes DownlinkWanted for its tracks. A
// DownlinkDropped takes back a DownlinkWanted that was not read yet. When an identity joins again, the entry of its former
// session is never told after the new one.
//
// In a room of many people news of the others (who comes, goes, publishes, changes) makes Ready readable at intervals, and Tick sees to that. Events returns
// it with whatever is read meanwhile.
package sfu
