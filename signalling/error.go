package signalling

import (
	"fmt"
)

// A Code says what kind of refusal an Error is; each edge maps it to what its clients understand.
type Code uint8

// The kinds of refusal.
const (
	Internal        Code = iota // our fault
	Unauthenticated             // nobody we know
	NotAllowed                  // known, but not for this
	Invalid                     // not understood
	RoomNotFound                // the room does not exist and the bearer may not create it
	Unavailable                 // full or shutting down: try again or elsewhere
	Overloaded                  // this server takes no newcomers at present: try again later or elsewhere
)

func (c Code) String() string {
	names := [...]string{"internal", "unauthenticated", "not allowed", "invalid", "room not found", "unavailable", "overloaded"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// An Error crosses the edge: Text is for the person on the call, Err for the operator and never shown.
type Error struct {
	Code Code
	Text string
	Err  error // nil if Text says it all
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Text
	}
	return e.Text + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Wrong wraps an error that nobody foresaw.
func Wrong(err error) *Error {
	return &Error{Code: Internal, Text: "Something went wrong on the server", Err: err}
}
