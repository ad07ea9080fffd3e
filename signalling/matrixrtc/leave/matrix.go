package leave

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/member"
)

// trialAlias is the alias of the room in which our own delayed event is scheduled. Nobody but our user is in it.
const trialAlias = "_callserver_trial"

// trialDelay is what clients schedule once they delegate: a homeserver that allows less fails the trial.
const trialDelay = time.Hour

// A Matrix is a Homeserver by a connection to a real one.
type Matrix struct {
	hs *homeserver.Homeserver

	mu   sync.Mutex
	room id.RoomID // of the trial, once it is known
}

// Of returns the Homeserver at the other end of a connection.
func Of(h *homeserver.Homeserver) *Matrix { return &Matrix{hs: h} }

// Do acts as the user where a registration allows it. Otherwise as our own user, whom Synapse lets do it too and holds to
// no limit, and at last without a token, by a limit of our address.
func (m *Matrix) Do(ctx context.Context, v Verb, user, delay string) error {
	if agent, err := m.hs.As(id.UserID(user)); err == nil {
		if err = do(ctx, agent, v, delay); !refused(err) {
			return err
		}
	}
	if agent, err := m.hs.As(m.hs.Sender()); err == nil {
		// A homeserver that looks whose it is says that our user has no such event.
		if err = do(ctx, agent, v, delay); !refused(err) && homeserver.Code(err) != "M_NOT_FOUND" {
			return err
		}
	}
	return do(ctx, m.hs.Anyone(), v, delay)
}

// refused reports whether a homeserver does not accept the registration, or not for this user.
func refused(err error) bool {
	var e *homeserver.Error
	return errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
}

func do(ctx context.Context, a homeserver.Agent, v Verb, delay string) error {
	switch v {
	case Restart:
		return a.RestartDelayed(ctx, id.DelayID(delay))
	case SendNow:
		return a.SendDelayed(ctx, id.DelayID(delay))
	case Forget:
		return a.CancelDelayed(ctx, id.DelayID(delay))
	}
	return fmt.Errorf("verb %d is none", v)
}

// Scheduled reads a delayed event as its user.
func (m *Matrix) Scheduled(ctx context.Context, user, delay string) (homeserver.Scheduled, error) {
	agent, err := m.hs.As(id.UserID(user))
	if err != nil {
		return homeserver.Scheduled{}, err
	}
	return agent.Scheduled(ctx, id.DelayID(delay))
}

// Try schedules a leave of a membership that our own user never had, an hour ahead, restarts it and takes it back.
func (m *Matrix) Try(ctx context.Context) error {
	able, err := m.hs.Delays(ctx)
	if err != nil {
		return err
	}
	if !able {
		return homeserver.ErrNoDelay
	}
	user := m.hs.Sender()
	if user == "" {
		return fmt.Errorf("homeservers[].registration: none of %s has a url, as the narrow one does, to try it with: %w", m.hs.Name(), homeserver.ErrNoPrivilege)
	}
	agent, err := m.hs.As(user)
	if err != nil {
		return fmt.Errorf("act as our own user: %w", err)
	}
	room, err := m.trialRoom(ctx, agent)
	if err != nil {
		return err
	}
	kind := event.Type{Type: member.TypeState, Class: event.StateEventType}
	delay, err := agent.DelayState(ctx, room, kind, "_"+string(user)+"_TRIAL_m.call", struct{}{}, trialDelay)
	if err != nil {
		return err
	}
	restarted := agent.RestartDelayed(ctx, delay)
	return errors.Join(restarted, agent.CancelDelayed(ctx, delay))
}

func (m *Matrix) trialRoom(ctx context.Context, agent homeserver.Agent) (id.RoomID, error) {
	m.mu.Lock()
	room := m.room
	m.mu.Unlock()
	if room != "" {
		return room, nil
	}
	room, err := agent.RoomOf(ctx, id.NewRoomAlias(trialAlias, m.hs.Name()))
	if homeserver.Code(err) == "M_NOT_FOUND" {
		room, err = agent.CreatePrivateRoom(ctx, trialAlias, "callserver: trial of delayed events")
	}
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	m.room = room
	m.mu.Unlock()
	return room, nil
}
