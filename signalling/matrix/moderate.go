package matrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"

	"callserver/sfu"
)

// targets are the people in the call whom an order means. Without any, the answer says why.
func (b *Bot) targets(o *order) ([]person, answer) {
	people := b.people(o.room)
	if len(people) == 0 {
		return nil, say("Nobody is in a call of this room on my server.")
	}
	names := o.words[1:]
	if len(names) == 1 && strings.EqualFold(names[0], "all") {
		others := slices.DeleteFunc(people, func(p person) bool { return p.user == o.sender })
		if len(others) == 0 {
			return nil, say("Nobody else is in the call.")
		}
		return others, answer{}
	}
	if len(names) == 0 && len(o.users) == 0 {
		return nil, say(fmt.Sprintf("Whom? Write %[1]s %[2]s @user, or %[1]s %[2]s all.", prefix, o.verb()))
	}
	if len(o.users) > 0 {
		return pick(people, o.users, func(p person, user id.UserID) bool { return p.user == user })
	}
	return pick(people, names, func(p person, name string) bool { return p.user.Localpart() == strings.TrimPrefix(name, "@") })
}

// pick finds each name among people; one that fits nobody, or several, spoils it all.
func pick[Name ~string](people []person, names []Name, fits func(person, Name) bool) (found []person, why answer) {
	for _, name := range names {
		var fitting []person
		for _, p := range people {
			if fits(p, name) {
				fitting = append(fitting, p)
			}
		}
		switch len(fitting) {
		case 0:
			return nil, say(string(name) + " is not in the call.")
		case 1:
			found = append(found, fitting[0])
		default:
			return nil, say(string(name) + " may be several people in the call. Write the whole user id.")
		}
	}
	return found, answer{}
}

func (b *Bot) mute(_ context.Context, o *order) (answer, error)   { return b.setMuted(o, true) }
func (b *Bot) unmute(_ context.Context, o *order) (answer, error) { return b.setMuted(o, false) }

// setMuted turns the sound of people off, or on where this server may.
func (b *Bot) setMuted(o *order, muted bool) (answer, error) {
	targets, why := b.targets(o)
	var changed, unable []string
	for _, p := range targets {
		done, barred := b.muteOne(p, muted)
		switch {
		case barred:
			unable = append(unable, string(p.user))
		case done:
			changed = append(changed, string(p.user))
		}
	}
	a := why
	if len(changed) > 0 {
		a.lines = append(a.lines, map[bool]string{true: "Muted: ", false: "Unmuted: "}[muted]+strings.Join(changed, ", ")+".")
	}
	if len(unable) > 0 {
		a.lines = append(a.lines, "Only they themselves can turn the microphone on again: "+strings.Join(unable, ", ")+".")
	}
	if a.empty() {
		return say(map[bool]string{true: "The microphone is off already.", false: "The microphone is on already."}[muted]), nil
	}
	return a, nil
}

// muteOne changes every audio track of a person. Barred means that only the person may.
func (b *Bot) muteOne(p person, muted bool) (done, barred bool) {
	for _, d := range p.devices {
		for _, t := range d.Info.Tracks {
			if t.Kind != sfu.Audio || t.Muted == muted {
				continue
			}
			_, err := b.options.Rooms.MuteTrack(d.Call, d.Info.Identity, t.SID, muted, b.now())
			done = done || err == nil
			barred = barred || errors.Is(err, sfu.ErrNotAllowed)
		}
	}
	return done, barred
}

func (b *Bot) kick(_ context.Context, o *order) (answer, error) {
	targets, why := b.targets(o)
	if len(targets) == 0 {
		return why, nil
	}
	var names []string
	locked := b.locked(targets)
	for _, p := range targets {
		b.options.Sessions.Expel(string(p.user), string(o.room))
		names = append(names, string(p.user))
	}
	a := say("Removed from the call: " + strings.Join(names, ", ") + ".")
	if !locked {
		a.lines = append(a.lines, fmt.Sprintf("As members of this room they may join again. %s lock first, or remove them from the room, to keep them out.", prefix))
	}
	return a, nil
}

func (b *Bot) lock(_ context.Context, o *order) (answer, error) {
	people := b.people(o.room)
	if b.setLocked(people, true) == 0 {
		return say("Nobody is in a call of this room on my server: there is nothing to lock."), nil
	}
	return say(fmt.Sprintf("The call is locked. Who is in it may come back, nobody else gets in, until it is over or somebody writes %s unlock. Removing somebody keeps them out.", prefix)), nil
}

func (b *Bot) unlock(_ context.Context, o *order) (answer, error) {
	people := b.people(o.room)
	if !b.locked(people) {
		return say("No call of this room is locked."), nil
	}
	b.setLocked(people, false)
	return say("The call is open again to every member of this room."), nil
}

// setLocked locks or opens the calls in which people are, and returns how many.
func (b *Bot) setLocked(people []person, on bool) (n int) {
	for call := range calls(people) {
		if b.options.Rooms.Lock(call, on) == nil {
			n++
		}
	}
	return n
}

func (b *Bot) end(_ context.Context, o *order) (answer, error) {
	people := b.people(o.room)
	ended := 0
	for call := range calls(people) {
		if b.options.Rooms.Delete(call, b.now()) == nil {
			ended++
		}
	}
	if ended == 0 {
		return say("Nobody is in a call of this room on my server."), nil
	}
	return say(fmt.Sprintf("The call is over, for %s.", several(len(people), "person", "people"))), nil
}
