package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

// Prefix is how a command begins.
const prefix = "!call"

const maxCommand = 1024 // bytes; what is longer is a text that happens to begin so

// An order is a command as somebody gave it.
type order struct {
	hs     *homeserver.Homeserver // which told us of it
	room   id.RoomID
	event  id.EventID
	thread id.EventID // where it was given; empty if in no thread
	sender id.UserID
	words  []string    // after the prefix; the first names the command
	users  []id.UserID // whom it names
}

// verb is the name of the command.
func (o *order) verb() string {
	if len(o.words) == 0 {
		return "help"
	}
	return strings.ToLower(o.words[0])
}

// parse reads a command. Notices, edits, and state that pretends to be a message are none.
func parse(e *event.Event) (*order, bool) {
	if e.StateKey != nil || e.RoomID == "" || e.ID == "" || !isUser(e.Sender) {
		return nil, false
	}
	var c struct {
		Type    string `json:"msgtype"`
		Body    string `json:"body"`
		HTML    string `json:"formatted_body"`
		Relates struct {
			Type  string     `json:"rel_type"`
			Event id.EventID `json:"event_id"`
		} `json:"m.relates_to"`
	}
	if json.Unmarshal(e.Content.VeryRaw, &c) != nil || c.Type != "m.text" || len(c.Body) > maxCommand || c.Relates.Type == "m.replace" {
		return nil, false
	}
	words := strings.Fields(c.Body)
	if len(words) == 0 || !strings.EqualFold(words[0], prefix) || !utf8.ValidString(c.Body) {
		return nil, false
	}
	o := &order{room: e.RoomID, event: e.ID, sender: e.Sender, words: words[1:]}
	if c.Relates.Type == "m.thread" {
		o.thread = c.Relates.Event
	}
	o.users = named(o.words, c.HTML)
	return o, true
}

// named are the users whom somebody wrote into a command, by their ids or as links. The list of mentions beside it is no
// use: clients add whoever is replied to.
func named(words []string, formatted string) (users []id.UserID) {
	for _, word := range words {
		users = appendUser(users, word)
	}
	if len(formatted) > 4*maxCommand {
		return users
	}
	if _, own, quotes := strings.Cut(formatted, "</mx-reply>"); quotes {
		formatted = own
	}
	for _, link := range links.FindAllStringSubmatch(formatted, -1) {
		if target, err := url.PathUnescape(html.UnescapeString(link[1])); err == nil {
			users = appendUser(users, target)
		}
	}
	return users
}

func appendUser(users []id.UserID, text string) []id.UserID {
	if user := id.UserID(text); isUser(user) && !slices.Contains(users, user) {
		return append(users, user)
	}
	return users
}

// links to users, as clients write them into a message.
var links = regexp.MustCompile(`<a [^>]*?href="https://matrix\.to/#/([^"?/]+)`)

// isUser reports whether something has the form of a user id, and a length that ids have.
func isUser(user id.UserID) bool {
	local, server, ok := strings.Cut(string(user), ":")
	return ok && strings.HasPrefix(local, "@") && server != "" && len(user) <= 255
}

// A command is one of those that the bot knows.
type command struct {
	name, arguments, help string
	moderators            bool // only for those who may remove others from the room
	do                    func(context.Context, *order) (answer, error)
}

// vocabulary is every command, in the order of the help.
func (b *Bot) vocabulary() []command {
	return []command{
		{"help", "", "these commands", false, b.help},
		{"status", "", "who is in the call, since when, from which homeserver, and how well connected", false, b.status},
		{"link", "", "a link to the call for the browser", false, b.link},
		{"ring", "@user", "asks somebody in this room to join the call", false, b.ring},
		{"why", "", "why you were not let into a call the last time; the answer goes to you alone", false, b.why},
		{"bridge", "on, off, me on or me off", "whether calls of older clients are put into this room's call (moderators), and in your own name", false, b.bridge},
		{"mute", "@user or all", "turns microphones off; whose they are may turn them on again", true, b.mute},
		{"unmute", "@user or all", "turns them on again, where the operator lets others do that", true, b.unmute},
		{"kick", "@user or all", "removes people from the call; they may come back unless it is locked", true, b.kick},
		{"lock", "", "nobody else gets into the call until it is over", true, b.lock},
		{"unlock", "", "everybody in this room may join again", true, b.unlock},
		{"end", "", "ends the call for everybody", true, b.end},
	}
}

// find returns the command of a name, or nil.
func (b *Bot) find(name string) *command {
	for i := range b.commands {
		if b.commands[i].name == name {
			return &b.commands[i]
		}
	}
	return nil
}

// obey does what a command says and answers it.
func (b *Bot) obey(ctx context.Context, o *order) {
	a, err := b.act(ctx, o)
	if err != nil {
		b.counters.failures.Add(1)
		b.log.Warn("command not carried out", "homeserver", o.hs.Name(), "room", o.room, "user", o.sender, "command", o.verb(), "err", err)
		a = say("That did not work: the homeserver does not do what is needed for it now. Try again in a moment.")
	}
	if !a.empty() {
		b.reply(ctx, o, a)
	}
}

func (b *Bot) act(ctx context.Context, o *order) (answer, error) {
	c := b.find(o.verb())
	if c == nil {
		return say(fmt.Sprintf("I do not know the command %q. %s help lists those that I know.", o.verb(), prefix)), nil
	}
	if c.moderators {
		if may, err := b.moderates(ctx, o); err != nil || !may {
			return sayModeratorsOnly, err
		}
	}
	return c.do(ctx, o)
}

func (b *Bot) help(context.Context, *order) (answer, error) {
	a := say("I am the bot of the server that carries the calls of this room. In this room I know these commands:")
	for _, c := range b.commands {
		words := c.help
		if c.moderators {
			words += " (moderators)"
		}
		a.items = append(a.items, item{strings.TrimSpace(prefix + " " + c.name + " " + c.arguments), words})
	}
	return a, nil
}
