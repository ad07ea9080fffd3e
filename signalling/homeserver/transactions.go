package homeserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const (
	// maxTransaction bounds the body of a transaction, in bytes. Homeservers put up to 100 events of 64 KiB into one,
	// and repeat one that is refused for ever, so that the bound is far above what they send.
	maxTransaction = 32 << 20
	// remembered is how many transactions are known again. Homeservers repeat the last one until it is answered.
	remembered = 256
)

// Handler answers the requests that homeservers make to their application services (Application Service API), below
// /_matrix/app/. Which homeserver asks is told by its hs_token.
func Handler(homeservers ...*Homeserver) http.Handler {
	mux := http.NewServeMux()
	authenticated := func(serve func(*Homeserver, http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !found {
				refuse(w, http.StatusUnauthorized, "M_MISSING_TOKEN", "Missing hs_token")
				return
			}
			h := owner(homeservers, token, (*Registration).Receives)
			if h == nil {
				refuse(w, http.StatusForbidden, "M_FORBIDDEN", "Wrong hs_token")
				return
			}
			serve(h, w, r)
		}
	}
	unknown := func(_ *Homeserver, w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "M_NOT_FOUND", "Not found") // users and rooms exist before anybody asks for them
	}
	mux.HandleFunc("PUT /_matrix/app/v1/transactions/{txn}", authenticated((*Homeserver).serveTransaction))
	mux.HandleFunc("POST /_matrix/app/v1/ping", authenticated(func(_ *Homeserver, w http.ResponseWriter, _ *http.Request) { accept(w) }))
	mux.HandleFunc("GET /_matrix/app/v1/users/{user}", authenticated(unknown))
	mux.HandleFunc("GET /_matrix/app/v1/rooms/{alias}", authenticated(unknown))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "M_UNRECOGNIZED", "Unrecognized request")
	})
	return mux
}

// owner finds the homeserver whose registration of some kind has the token, in a time that depends on neither.
func owner(homeservers []*Homeserver, token string, kind func(*Registration) bool) *Homeserver {
	var found *Homeserver
	given := sha256.Sum256([]byte(token))
	for _, h := range homeservers {
		for _, r := range h.options.Registrations {
			right := sha256.Sum256([]byte(r.ServerToken))
			if subtle.ConstantTimeCompare(given[:], right[:]) == 1 && kind(r) {
				found = h
			}
		}
	}
	return found
}

func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}") // the homeserver is gone: it will ask again
}

func refuse(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"errcode": code, "error": text})
}

// A transaction is the body of a push. Ephemeral events are nobody's here.
type transaction struct {
	Events           []json.RawMessage `json:"events"`
	ToDevice         []json.RawMessage `json:"to_device"`
	ToDeviceUnstable []json.RawMessage `json:"de.sorunome.msc2409.to_device"`
}

func (h *Homeserver) serveTransaction(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTransaction))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			h.log.Error("transaction refused: the homeserver will not get past it", "bytes", ">32 MiB")
			refuse(w, http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "The transaction is too large")
			return
		}
		refuse(w, http.StatusBadRequest, "M_NOT_JSON", "The body could not be read")
		return
	}
	var t transaction
	if err := json.Unmarshal(body, &t); err != nil {
		refuse(w, http.StatusBadRequest, "M_NOT_JSON", "The body is no transaction")
		return
	}
	h.counters.transactions.Add(1)
	h.heard.Store(true)
	h.inbox.deliver(h, r.PathValue("txn"), &t)
	accept(w)
}

// parseEvent reads an event. What is odd about it apart from the fields that everybody needs does not make it none:
// nobody may hide a kick from us by adding nonsense to it.
func parseEvent(raw json.RawMessage, class event.TypeClass) (*event.Event, error) {
	e := &event.Event{}
	if err := json.Unmarshal(raw, e); err != nil {
		var least struct {
			StateKey *string       `json:"state_key"`
			Sender   id.UserID     `json:"sender"`
			Type     string        `json:"type"`
			ID       id.EventID    `json:"event_id"`
			RoomID   id.RoomID     `json:"room_id"`
			Content  event.Content `json:"content"`
		}
		if err := json.Unmarshal(raw, &least); err != nil {
			return nil, err
		}
		e = &event.Event{
			StateKey: least.StateKey, Sender: least.Sender, ID: least.ID, RoomID: least.RoomID, Content: least.Content,
			Type: event.Type{Type: least.Type},
		}
	}
	if e.Type.Type == "" || e.Sender == "" {
		return nil, errors.New("an event without type or sender")
	}
	e.Type.Class = class
	if class != event.ToDeviceEventType {
		e.Type.Class = event.MessageEventType
		if e.StateKey != nil {
			e.Type.Class = event.StateEventType
		}
	}
	e.Mautrix.ReceivedAt = time.Now()
	return e, nil
}

// An inbox hands the events of new transactions to the subscriptions, in the order of their arrival.
type inbox struct {
	mu            sync.Mutex
	seen          map[string]map[id.EventID]struct{} // by transaction id
	order         []string                           // of seen, oldest first
	subscriptions map[*Subscription]struct{}
}

// deliver never waits for a subscriber.
func (b *inbox) deliver(h *Homeserver, txn string, t *transaction) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, replayed := b.seen[txn]
	if replayed {
		h.counters.replayed.Add(1)
	} else {
		known = b.rememberLocked(txn)
	}
	var fresh []*event.Event
	defer func() { b.publishLocked(h, fresh) }()
	for _, raw := range t.Events {
		e, err := parseEvent(raw, event.MessageEventType)
		if err != nil || e.RoomID == "" || e.ID == "" {
			h.counters.badEvents.Add(1)
			continue
		}
		// A repeated transaction is known by its events too: Dendrite makes its ids of a time and a length, which two
		// different ones may share.
		if _, again := known[e.ID]; again {
			continue
		}
		known[e.ID] = struct{}{}
		fresh = append(fresh, e)
	}
	if replayed {
		return
	}
	for _, raw := range append(t.ToDevice, t.ToDeviceUnstable...) {
		e, err := parseEvent(raw, event.ToDeviceEventType)
		if err != nil {
			h.counters.badEvents.Add(1)
			continue
		}
		fresh = append(fresh, e)
	}
}

// publish hands the events of a room that came another way to the subscriptions, and returns how many they were.
func (b *inbox) publish(h *Homeserver, room id.RoomID, raw []json.RawMessage) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	var fresh []*event.Event
	for _, r := range raw {
		e, err := parseEvent(r, event.MessageEventType)
		if err != nil || e.ID == "" {
			h.counters.badEvents.Add(1)
			continue
		}
		e.RoomID = room
		fresh = append(fresh, e)
	}
	b.publishLocked(h, fresh)
	return len(fresh)
}

func (b *inbox) rememberLocked(txn string) map[id.EventID]struct{} {
	if b.seen == nil {
		b.seen = make(map[string]map[id.EventID]struct{})
	}
	if len(b.order) >= remembered {
		delete(b.seen, b.order[0])
		b.order = append(b.order[:0], b.order[1:]...)
	}
	events := make(map[id.EventID]struct{})
	b.seen[txn] = events
	b.order = append(b.order, txn)
	return events
}

// publishLocked hands over what came together at once: who looks at the latest of several events must not see the first
// alone.
func (b *inbox) publishLocked(h *Homeserver, events []*event.Event) {
	h.counters.events.Add(uint64(len(events)))
	for s := range b.subscriptions {
		h.counters.dropped.Add(uint64(s.offer(events)))
	}
}
