package matrixrtc

// A reason says in one word why a request was refused: for the log, and as the label of a metric. They are few, and none
// comes from the outside.
type reason string

const (
	reasonUnlisted     reason = "unlisted"     // of a homeserver whose users are refused
	reasonDenied       reason = "denied"       // of a homeserver that servers.deny names, or servers.allow does not
	reasonBarred       reason = "barred"       // of a homeserver that the room's server ACL denies
	reasonUnheld       reason = "unheld"       // of another homeserver, and no local user is in the call
	reasonOutside      reason = "outside"      // not joined to the Matrix room
	reasonUnverifiable reason = "unverifiable" // nobody can tell
	reasonUnavailable  reason = "unavailable"  // the homeserver does not answer
	reasonFull         reason = "full"         // too many people in the call, or too many calls of the user
)
