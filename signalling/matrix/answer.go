package matrix

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"html"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
)

const (
	sendTries = 3
	sendPause = 2 * time.Second // before the second try; the homeserver may ask for more, up to maxPause
	maxPause  = 10 * time.Second
)

// An answer is sentences, and below them a list. All of it is text: whoever wrote parts of it writes no HTML here.
type answer struct {
	lines []string
	items []item
}

// An item of a list: a command or a name, and words about it.
type item struct{ head, words string }

func say(lines ...string) answer { return answer{lines: lines} }

func (a answer) empty() bool { return len(a.lines)+len(a.items) == 0 }

func (a answer) plain() string {
	var s strings.Builder
	for _, line := range a.lines {
		s.WriteString(line + "\n")
	}
	for _, i := range a.items {
		s.WriteString("- " + i.head + ": " + i.words + "\n")
	}
	return strings.TrimSuffix(s.String(), "\n")
}

func (a answer) html() string {
	var s strings.Builder
	for _, line := range a.lines {
		s.WriteString("<p>" + html.EscapeString(line) + "</p>")
	}
	if len(a.items) > 0 {
		s.WriteString("<ul>")
		for _, i := range a.items {
			s.WriteString("<li><code>" + html.EscapeString(i.head) + "</code>: " + html.EscapeString(i.words) + "</li>")
		}
		s.WriteString("</ul>")
	}
	return s.String()
}

// A message is the content of m.room.message.
type message struct {
	Type     string    `json:"msgtype"`
	Body     string    `json:"body"`
	Format   string    `json:"format"`
	HTML     string    `json:"formatted_body"`
	Mentions mentions  `json:"m.mentions"` // empty: nobody's client is to make a sound
	Relates  *relation `json:"m.relates_to,omitempty"`
}

type mentions struct {
	Users []id.UserID `json:"user_ids,omitempty"`
}

type relation struct {
	Type     string     `json:"rel_type,omitempty"`
	Event    id.EventID `json:"event_id,omitempty"`
	Fallback bool       `json:"is_falling_back,omitempty"`
	Reply    *reference `json:"m.in_reply_to,omitempty"`
}

type reference struct {
	Event id.EventID `json:"event_id"`
}

// notice makes a message that no other bot answers.
func notice(a answer) message {
	return message{Type: "m.notice", Body: a.plain(), Format: "org.matrix.custom.html", HTML: a.html()}
}

// reply answers a command in its thread, which begins at the command where it was given in none.
func (b *Bot) reply(ctx context.Context, o *order, a answer) {
	root := o.thread
	if root == "" {
		root = o.event
	}
	m := notice(a)
	m.Relates = &relation{Type: "m.thread", Event: root, Fallback: true, Reply: &reference{o.event}}
	b.send(ctx, o.hs, o.room, transaction(o.event, "reply"), m)
}

// send sends a message, several times if need be, and reports whether it is sent.
func (b *Bot) send(ctx context.Context, h *homeserver.Homeserver, room id.RoomID, transaction string, m message) bool {
	agent, err := h.As(h.Sender())
	for try := 1; err == nil; try++ {
		var kind event.Type
		var content any
		if kind, content, err = b.seal(ctx, h, agent, room, event.EventMessage, m); err == nil {
			_, err = agent.Send(ctx, room, kind, transaction, content)
		}
		if err == nil {
			b.counters.replies.Add(1)
			return true
		}
		if try == sendTries || !errors.Is(err, homeserver.ErrUnavailable) || !pause(ctx, err, time.Duration(try)*sendPause) {
			break
		}
		err = nil
	}
	b.counters.failures.Add(1)
	b.log.Warn("message not sent", "homeserver", h.Name(), "room", room, "err", err)
	return false
}

// pause waits before another try, as long as the homeserver asks for, and reports whether there is time for one.
func pause(ctx context.Context, err error, least time.Duration) bool {
	var answer *homeserver.Error
	if errors.As(err, &answer) {
		least = min(max(least, answer.Retry), maxPause)
	}
	timer := time.NewTimer(least)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// transaction is the id under which what a command leads to is sent, the same whenever it is heard again.
func transaction(command id.EventID, part string) string {
	sum := sha256.Sum256([]byte(string(command) + " " + part))
	return "callserver-" + base64.RawURLEncoding.EncodeToString(sum[:12])
}
