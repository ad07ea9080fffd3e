package switchboard

import (
	"context"
	"fmt"
	"sync"

	"maunium.net/go/mautrix/id"
)

// Consent is what rooms and users said about being bridged. Who said nothing is bridged in rooms that are not encrypted,
// and by the bot: never as the user.
type consent struct {
	mu    sync.Mutex
	rooms map[id.RoomID]bool
	users map[id.UserID]bool
	store Store // nil: none
}

// load takes over what is stored.
func (c *consent) load(ctx context.Context, from Store) error {
	words, err := from.Consent(ctx)
	if err != nil {
		return fmt.Errorf("load who agreed to be bridged: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store = from
	c.rooms, c.users = words.Rooms, words.Users
	return nil
}

// room is what was said about a room, if anything was.
func (c *consent) room(room id.RoomID) (on, said bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	on, said = c.rooms[room]
	return on, said
}

// user reports whether a user agreed to be stood in and spoken for.
func (c *consent) user(user id.UserID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[user]
}

// agreed are all who did.
func (c *consent) agreed() (users []id.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for user, on := range c.users {
		if on {
			users = append(users, user)
		}
	}
	return users
}

// refuses reports whether a user does not want to be bridged at all.
func (c *consent) refuses(user id.UserID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	on, said := c.users[user]
	return said && !on
}

// BridgeRoom switches the bridging of a room's calls on or off.
func (s *Switchboard) BridgeRoom(ctx context.Context, room id.RoomID, on bool) error {
	return s.consent.say(ctx, Words{Rooms: map[id.RoomID]bool{room: on}})
}

// BridgeUser notes that a user agrees, or does not want to be bridged at all.
func (s *Switchboard) BridgeUser(ctx context.Context, user id.UserID, on bool) error {
	if err := s.consent.say(ctx, Words{Users: map[id.UserID]bool{user: on}}); err != nil {
		return err
	}
	select {
	case s.agreed <- struct{}{}:
	default:
	}
	return nil
}

// Bridged says whether a room's calls are bridged if it is encrypted, or if it is not.
func (s *Switchboard) Bridged(room id.RoomID, encrypted bool) bool {
	on, said := s.consent.room(room)
	return said && on || !said && !encrypted
}

// Agreed says what a user said.
func (s *Switchboard) Agreed(user id.UserID) (on, refused bool) {
	return s.consent.user(user), s.consent.refuses(user)
}

// say stores words, and heeds them from then on.
func (c *consent) say(ctx context.Context, w Words) error {
	if c.store != nil {
		if err := c.store.Say(ctx, w); err != nil {
			return fmt.Errorf("store who agreed to be bridged: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rooms == nil {
		c.rooms = map[id.RoomID]bool{}
	}
	if c.users == nil {
		c.users = map[id.UserID]bool{}
	}
	for room, on := range w.Rooms {
		c.rooms[room] = on
	}
	for user, on := range w.Users {
		c.users[user] = on
	}
	return nil
}
