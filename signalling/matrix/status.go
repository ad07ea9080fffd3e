package matrix

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/homeserver"
)

const maxListed = 50 // people in one answer

// A person is somebody in a call, with every device.
type person struct {
	user    id.UserID
	since   time.Time
	devices []signalling.Attendee
}

// people groups who is in the calls of a room by user, the longest there first.
func (b *Bot) people(room id.RoomID) []person {
	var all []person
	for _, a := range b.options.Sessions.Attendance(string(room)) {
		user := id.UserID(a.Origin.Person())
		i := slices.IndexFunc(all, func(p person) bool { return p.user == user })
		if i < 0 {
			i = len(all)
			all = append(all, person{user: user, since: a.Info.JoinedAt})
		}
		all[i].devices = append(all[i].devices, a)
	}
	return all
}

func (b *Bot) status(_ context.Context, o *order) (answer, error) {
	people := b.people(o.room)
	if len(people) == 0 {
		return say("Nobody is in a call of this room on my server."), nil
	}
	now := b.now()
	servers := map[string]bool{}
	for _, p := range people {
		servers[homeserver.ServerOf(p.user)] = true
	}
	summary := fmt.Sprintf("In the call: %s from %s, since %s.", several(len(people), "person", "people"), several(len(servers), "homeserver", "homeservers"), moment(people[0].since, now))
	if b.locked(people) {
		summary += " It is locked."
	}
	a := say(summary)
	for _, p := range people[:min(len(people), maxListed)] {
		a.items = append(a.items, item{string(p.user), p.describe(now)})
	}
	if more := len(people) - maxListed; more > 0 {
		a.items = append(a.items, item{"...", fmt.Sprintf("and %d more", more)})
	}
	return a, nil
}

func (b *Bot) locked(people []person) bool {
	for call := range calls(people) {
		if info, _, ok := b.options.Rooms.Room(call); ok && info.Locked {
			return true
		}
	}
	return false
}

// calls are the rooms of the media server in which people are.
func calls(people []person) map[sfu.RoomID]struct{} {
	all := map[sfu.RoomID]struct{}{}
	for _, p := range people {
		for _, d := range p.devices {
			all[d.Call] = struct{}{}
		}
	}
	return all
}

// describe says how somebody is in the call: "12 min, good connection, microphone on, camera off".
func (p person) describe(now time.Time) string {
	parts := []string{duration(now.Sub(p.since))}
	if n := len(p.devices); n > 1 {
		parts = append(parts, several(n, "device", "devices"))
	}
	worst, judged, publishes := sfu.Excellent, false, false
	tracks := map[sfu.TrackSource]bool{} // whether it is on
	for _, d := range p.devices {
		if d.Judged && (!judged || rank(d.Quality) < rank(worst)) {
			worst, judged = d.Quality, true
		}
		publishes = publishes || d.Info.Permission.CanPublish
		for _, t := range d.Info.Tracks {
			tracks[t.Source] = tracks[t.Source] || !t.Muted
		}
	}
	if judged {
		parts = append(parts, connections[worst])
	}
	if !publishes {
		return strings.Join(append(parts, "receives only: speaks through another homeserver's server"), ", ")
	}
	for _, of := range []struct {
		source sfu.TrackSource
		name   string
	}{{sfu.Microphone, "microphone"}, {sfu.Camera, "camera"}} {
		parts = append(parts, of.name+map[bool]string{true: " on", false: " off"}[tracks[of.source]])
	}
	if tracks[sfu.ScreenShare] {
		parts = append(parts, "shares the screen")
	}
	return strings.Join(parts, ", ")
}

var connections = map[sfu.ConnectionQuality]string{
	sfu.Excellent: "excellent connection", sfu.Good: "good connection", sfu.Poor: "poor connection", sfu.Lost: "connection lost",
}

// rank orders qualities, the worst first, as their numbers do not.
func rank(q sfu.ConnectionQuality) int {
	if q == sfu.Lost {
		return -1
	}
	return int(q)
}

func several(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// moment is a time of the last day or so, and how long ago it was.
func moment(t, now time.Time) string {
	layout := "15:04 UTC"
	if now.Sub(t) > 12*time.Hour {
		layout = "2 January, 15:04 UTC"
	}
	return fmt.Sprintf("%s (%s ago)", t.UTC().Format(layout), duration(now.Sub(t)))
}

// duration is a time that people care to read.
func duration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func (b *Bot) link(_ context.Context, o *order) (answer, error) {
	if b.options.ElementCall == "" {
		return say("The operator of this server names no Element Call page (bot.element_call). Join by your client's call button."), nil
	}
	parameters := url.Values{"roomId": {string(o.room)}, "viaServers": {o.hs.Name()}}
	return say("The call of this room, for members of the room: " + b.options.ElementCall + "/room/#?" + parameters.Encode()), nil
}
