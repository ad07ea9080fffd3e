package switchboard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// Clients of MatrixRTC call whoever is in a call as the room calls the user. Where that is the bot, its name in the room says in whose place it
// is, for as long as it is.

const (
	maxNamed = 3  // callers whom the bot's name has
	maxName  = 60 // characters of each
	via      = " (via callserver)"
)

// rename has the bot's name in a room say for whom it is in the room's call. A name that cannot be changed is no reason not to call.
func (s *Switchboard) rename(ctx context.Context, h *homeserver.Homeserver, room id.RoomID) {
	agent, err := h.As(h.Sender())
	for err == nil {
		names := s.stoodFor(room)
		err = agent.Rename(ctx, room, nameFor(names))
		if slices.Equal(names, s.stoodFor(room)) { // or else a call began or ended meanwhile, whose own renaming may have been earlier than this
			break
		}
	}
	if err != nil && homeserver.Code(err) != "M_FORBIDDEN" { // not in the room any more
		s.log.Warn("the bot's name in a room does not say for whom it is in the call", "matrix_room", room, "err", err)
	}
}

// stoodFor are the names of those for whom the bot is in a room's call, the longest there first.
func (s *Switchboard) stoodFor(room id.RoomID) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls[room] {
		if c.named.Load() {
			names = append(names, c.plan.place.Name)
		}
	}
	return names
}

// nameFor is the bot's name where it stands for some; empty for nobody: as everywhere else.
func nameFor(names []string) string {
	var listed []string
	for i, name := range names {
		if i == maxNamed {
			listed = append(listed, fmt.Sprintf("%d more", len(names)-i))
			break
		}
		listed = append(listed, shortened(name))
	}
	if len(listed) == 0 {
		return ""
	}
	return strings.Join(listed, ", ") + via
}

func shortened(name string) string {
	if utf8.RuneCountInString(name) > maxName {
		return string([]rune(name)[:maxName-1]) + "…"
	}
	return name
}
