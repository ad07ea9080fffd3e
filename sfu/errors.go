package sfu

import "errors"

// What a call may fail with. Callers compare with errors.Is.
var (
	ErrRoomNotFound = errors.New("requested room does not exist") // and the member may not create it
	ErrRoomFull     = errors.New("room is full")
	ErrRoomLocked   = errors.New("room is locked") // see Rooms.Lock
	ErrNotFound     = errors.New("not found")      // participant or track
	ErrNotAllowed   = errors.New("not allowed")
	ErrLimit        = errors.New("limit exceeded")
	ErrUnsupported  = errors.New("unsupported")
	ErrQueued       = errors.New("queued") // answered by TrackPublished later
	ErrClosed       = errors.New("participant has left")
)
