package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pion/rtp"
)

const (
	patience = 15 * time.Second // for the first packet
	spoken   = 20 * time.Millisecond
)

// guests are who takes part, as control gets them.
type guests struct {
	URL     string // of the homeserver, as clients have it
	Bot     string
	Callers []struct{ User, Token, Room string }
}

// A party is all callers, each with a sync of his own, and the memberships of their rooms. Safe for concurrent use.
type party struct {
	callers []*caller
	stop    context.CancelFunc
	loops   sync.WaitGroup

	mu      sync.Mutex
	members map[membership]time.Time // when it was cleared; zero while it is there
	changed chan struct{}            // closed with the next event
}

// A membership is a state event of a member.
type membership struct{ room, key string }

// newParty has everybody listen.
func newParty(g guests) (*party, error) {
	api, err := newAPI()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &party{stop: stop, members: map[membership]time.Time{}, changed: make(chan struct{})}
	client := &http.Client{Timeout: 2 * hold, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * len(g.Callers), IdleConnTimeout: time.Minute}}
	for _, one := range g.Callers {
		c := &caller{account: &account{base: g.URL, http: client, token: one.Token, room: one.Room}, user: one.User, bot: g.Bot, api: api}
		p.callers = append(p.callers, c)
		since, _, err := c.sync(ctx, "")
		if err != nil {
			p.close()
			return nil, fmt.Errorf("first sync of %s: %w", one.User, err)
		}
		p.loops.Go(func() { p.syncLoop(ctx, c, since) })
	}
	p.loops.Go(func() { p.speakLoop(ctx) })
	return p, nil
}

func (p *party) close() {
	p.stop()
	p.loops.Wait()
	for _, c := range p.callers {
		if s := c.session(); s != nil && s.peer != nil {
			_ = s.peer.Close()
		}
	}
}

func (p *party) syncLoop(ctx context.Context, c *caller, since string) {
	for ctx.Err() == nil {
		next, events, err := c.sync(ctx, since)
		if err != nil {
			if s := c.session(); s != nil && ctx.Err() == nil {
				s.fail(err)
			}
			select { // a homeserver that is not there must not keep the processor busy
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		since = next
		now := time.Now()
		for _, e := range events {
			if e.Type == typeMember {
				p.member(c.room, e, now)
			}
			c.listen(ctx, e, now)
		}
		p.tell()
	}
}

// member notes a membership. Both callers of a room hear of it; the first counts.
func (p *party) member(room string, e incoming, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := membership{room, e.StateKey}
	var content map[string]json.RawMessage
	there := json.Unmarshal(e.Content, &content) == nil && len(content) > 0
	cleared, known := p.members[m]
	switch {
	case there && !known:
		p.members[m] = time.Time{}
	case !there && cleared.IsZero():
		p.members[m] = now // device ids of the bot are never used again
	}
}

// tell wakes who waits.
func (p *party) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// speakLoop has everybody who is in a call speak: a packet of 20 ms at a time, as an Opus encoder makes them.
func (p *party) speakLoop(ctx context.Context) {
	tick := time.NewTicker(spoken)
	defer tick.Stop()
	packet := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 111}, Payload: make([]byte, 80)}
	packet.Payload[0] = 0x78 // CELT, 20 ms, mono
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		packet.SequenceNumber++
		packet.Timestamp += 960
		for _, c := range p.callers {
			if s := c.session(); s != nil && s.voice != nil {
				_ = s.voice.WriteRTP(&packet) // a track without a transport yet takes it, a closed one refuses it
			}
		}
	}
}

// A report is what became of one caller's call.
type report struct {
	User   string  `json:"user"`
	Room   string  `json:"room"`
	MS     float64 `json:"ms,omitempty"` // from the invitation to the first packet, and below to the answer, and to ICE and DTLS connected
	Answer float64 `json:"answer,omitempty"`
	Linked float64 `json:"linked,omitempty"`
	Failed string  `json:"failed,omitempty"`
}

// place has everybody of a room, or of all but one, call who is in no call: the callers of a room together, as many a second as the
// rate says. It returns when everybody has heard a packet or given up.
func (p *party) place(ctx context.Context, rate float64, room, except string) ([]report, error) {
	if p == nil || rate <= 0 {
		return nil, errors.New("nobody is there, or the rate is none")
	}
	var reports []report
	var mu sync.Mutex
	var calls sync.WaitGroup
	began, placed := time.Now(), 0
	last := ""
	for _, c := range p.callers {
		if room != "" && c.room != room || c.room == except || c.busy() {
			continue
		}
		if c.room != last {
			due := began.Add(time.Duration(float64(placed) / rate * float64(time.Second)))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		last = c.room
		placed++
		calls.Go(func() {
			r := c.try(ctx)
			mu.Lock()
			defer mu.Unlock()
			reports = append(reports, r)
		})
	}
	calls.Wait()
	return reports, nil
}

// try places a call and waits for the first packet.
func (c *caller) try(ctx context.Context) report {
	r := report{User: c.user, Room: c.room}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := c.place(ctx)
	if err != nil {
		s.fail(err)
		r.Failed = err.Error()
		return r
	}
	defer func() {
		if r.Failed != "" {
			_ = s.peer.Close() // it ends either way
		}
	}()
	select {
	case <-s.heard:
		s.mu.Lock()
		defer s.mu.Unlock()
		since := func(t time.Time) float64 { return float64(max(t.Sub(s.invited), 0).Microseconds()) / 1000 } // 0: not noticed
		r.MS, r.Answer, r.Linked = since(s.first), since(s.answer), since(s.linked)
	case <-s.over:
		r.Failed = "hung up: " + s.reason
	case <-ctx.Done():
		s.fail(errors.New("no packet came"))
		s.mu.Lock()
		defer s.mu.Unlock()
		r.Failed = fmt.Sprintf("no packet within %s, ICE is %s, %v", patience, s.peer.ICEConnectionState(), s.failed)
	}
	return r
}

// An ending is what a watch saw. Times are milliseconds since when it was to begin.
type ending struct {
	Calls       int      `json:"calls"`
	HungUp      int      `json:"hungUp"`
	LastHangup  int64    `json:"lastHangup"`
	Memberships int      `json:"memberships"`
	Cleared     int      `json:"cleared"`
	LastCleared int64    `json:"lastCleared"`
	Left        []string `json:"left"` // calls that nobody ended, and memberships that are there
}

// watch waits until every call that was up at a time is hung up by the bot and every membership cleared, or ctx ends.
func (p *party) watch(ctx context.Context, since time.Time) ending {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		e := p.ending(since)
		if len(e.Left) == 0 {
			return e
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return e
		}
	}
}

func (p *party) ending(since time.Time) ending {
	e := ending{Left: []string{}}
	for _, c := range p.callers {
		s := c.session()
		if s == nil {
			continue
		}
		s.mu.Lock()
		switch {
		case s.first.IsZero() || !s.ended.IsZero() && s.ended.Before(since):
		case s.ended.IsZero():
			e.Calls++
			e.Left = append(e.Left, "the call of "+c.user)
		default:
			e.Calls++
			e.HungUp++
			e.LastHangup = max(e.LastHangup, s.ended.Sub(since).Milliseconds())
		}
		s.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for m, cleared := range p.members {
		switch {
		case !cleared.IsZero() && cleared.Before(since):
		case cleared.IsZero():
			e.Memberships++
			e.Left = append(e.Left, "the membership "+m.key)
		default:
			e.Memberships++
			e.Cleared++
			e.LastCleared = max(e.LastCleared, cleared.Sub(since).Milliseconds())
		}
	}
	slices.Sort(e.Left)
	return e
}

// hangup has everybody hang up, and returns when no membership is left.
func (p *party) hangup(ctx context.Context) error {
	var calls sync.WaitGroup
	failures := make([]error, len(p.callers))
	for i, c := range p.callers {
		calls.Go(func() { failures[i] = c.hangup(ctx) })
	}
	calls.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	if e := p.watch(ctx, time.Now()); len(e.Left) > 0 {
		return fmt.Errorf("everybody has hung up, and there is still %v", e.Left)
	}
	return nil
}
