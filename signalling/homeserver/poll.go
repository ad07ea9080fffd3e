package homeserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const (
	pollWait  = 30 * time.Second // how long the homeserver holds a poll that has nothing to tell
	pollLimit = 100              // events in one answer; where there were more, Batch.Gap
	pollPause = 500 * time.Millisecond
)

// A Poll follows one room, or all that a user is in, through the eyes of that user, by /sync (Client-Server API, Syncing).
// It asks for what happens there only, as no device and without the user appearing online, and hands the events to the
// subscribers as transactions do. Caller's goroutine only.
type Poll struct {
	agent  Agent
	room   id.RoomID // empty: all
	filter string
	since  string    // where the next answer starts; empty before the first
	began  time.Time // the last request
	told   bool      // the last answer had events
}

// Poll makes a poll of a room for events of the given types. The agent should be in the room.
func (a Agent) Poll(room id.RoomID, types ...event.Type) *Poll {
	return &Poll{agent: a, room: room, filter: pollFilter([]id.RoomID{room}, only(types))}
}

// PollRooms makes a poll of all rooms that the agent is in, for events of the given types.
func (a Agent) PollRooms(types ...event.Type) *Poll {
	return &Poll{agent: a, filter: pollFilter(nil, only(types))}
}

func only(types []event.Type) eventFilter {
	f := eventFilter{Limit: pollLimit}
	for _, t := range types {
		f.Types = append(f.Types, t.Type)
	}
	return f
}

// A Batch is what became of one request of a poll.
type Batch struct {
	Started bool // nothing that happens from now on is missed; what happened before is
	Events  int  // handed to the subscribers
	Gap     bool // there were more: what is derived from them is to be read again
	Gone    bool // the user left the room: there will be no more
}

// Next waits up to half a minute for events. The first call returns at once: it finds out where to start, and nothing that
// happens from then on is missed, however long the caller takes in between. After an error, call Next again: it
// goes on from the same place. M_FORBIDDEN, M_UNKNOWN_TOKEN and M_USER_DEACTIVATED mean that the user is no more.
func (p *Poll) Next(ctx context.Context) (Batch, error) {
	if p.since == "" {
		return p.start(ctx)
	}
	if err := p.pace(ctx); err != nil {
		return Batch{}, err
	}
	p.began = time.Now()
	answer, err := p.sync(ctx, p.filter, pollWait)
	if err != nil {
		if code := Code(err); (code == "M_INVALID_PARAM" || code == "M_UNKNOWN") && !errors.Is(err, ErrUnavailable) {
			return p.start(ctx) // the homeserver has forgotten the place
		}
		return Batch{}, err
	}
	var b Batch
	for _, rooms := range []map[id.RoomID]syncRoom{answer.Rooms.Join, answer.Rooms.Leave} {
		for room, r := range rooms {
			if p.room != "" && p.room != room {
				continue
			}
			b.Gap = b.Gap || r.Timeline.Limited
			b.Events += p.agent.hs.inbox.publish(p.agent.hs, room, append(r.State.Events, r.Timeline.Events...))
		}
	}
	_, joined := answer.Rooms.Join[p.room]
	_, left := answer.Rooms.Leave[p.room]
	b.Gone = left && !joined
	p.since, p.told = answer.Next, b.Events > 0
	return b, nil
}

// pace keeps a homeserver that answers at once with nothing of interest from being asked without end.
func (p *Poll) pace(ctx context.Context) error {
	if p.told {
		return nil
	}
	select {
	case <-time.After(pollPause - time.Since(p.began)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Poll) start(ctx context.Context) (Batch, error) {
	p.since = ""
	answer, err := p.sync(ctx, pollFilter([]id.RoomID{}, nothing), 0)
	p.since = answer.Next
	return Batch{Started: err == nil}, err
}

type syncAnswer struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join  map[id.RoomID]syncRoom `json:"join"`
		Leave map[id.RoomID]syncRoom `json:"leave"`
	} `json:"rooms"`
}

type syncRoom struct {
	State    syncEvents `json:"state"`
	Timeline syncEvents `json:"timeline"`
}

type syncEvents struct {
	Events  []json.RawMessage `json:"events"`
	Limited bool              `json:"limited"`
}

func (p *Poll) sync(ctx context.Context, filter string, wait time.Duration) (answer syncAnswer, err error) {
	query := url.Values{
		"filter": {filter}, "timeout": {strconv.FormatInt(wait.Milliseconds(), 10)}, "set_presence": {"offline"},
	}
	if p.since != "" {
		query.Set("since", p.since)
	}
	err = p.agent.hs.hold(ctx, pollWait, p.agent.who, "follow "+string(cmp.Or(p.room, "all rooms")), query, &answer, "v3", "sync")
	return answer, err
}

// An eventFilter is what we use of a filter of /sync.
type eventFilter struct {
	Types    []string `json:"types,omitempty"`
	NotTypes []string `json:"not_types,omitempty"`
	Limit    int      `json:"limit,omitempty"`
}

var nothing = eventFilter{NotTypes: []string{"*"}, Limit: 1}

// pollFilter leaves out what is not of the rooms and the filter; nil means all rooms. Dendrite tells of all rooms nevertheless.
func pollFilter(rooms []id.RoomID, events eventFilter) string {
	type roomFilter struct {
		Rooms     *[]id.RoomID `json:"rooms,omitempty"`
		State     eventFilter  `json:"state"`
		Timeline  eventFilter  `json:"timeline"`
		Ephemeral eventFilter  `json:"ephemeral"`
		Account   eventFilter  `json:"account_data"`
	}
	among := &rooms
	if rooms == nil {
		among = nil
	}
	text, _ := json.Marshal(struct { // of text and numbers: no error
		Room     roomFilter  `json:"room"`
		Presence eventFilter `json:"presence"`
		Account  eventFilter `json:"account_data"`
	}{roomFilter{among, events, events, nothing, nothing}, nothing, nothing})
	return string(text)
}

// hold is request for an answer that the homeserver may hold back for a while. It takes none of the slots, so that many who
// wait keep nobody from asking, and is never the one request by which the breaker finds out whether somebody is there.
func (h *Homeserver) hold(ctx context.Context, wait time.Duration, who identity, op string, query url.Values, out any, path ...any) error {
	if !h.breaker.closed() {
		if err := h.request(ctx, identity{}, op, http.MethodGet, nil, nil, nil, "versions"); err != nil {
			return err
		}
	}
	if err := h.permit(op, path); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, wait+h.options.Timeout)
	defer cancel()
	return h.attempt(ctx, limited, who, op, http.MethodGet, query, nil, out, path)
}
