package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// libraryTimeout bounds a request of a library: keys of other homeservers' users take as long as these.
const libraryTimeout = 20 * time.Second

// LogIn returns an agent that is one device of the user of an agent that [Homeserver.As] made. A device that is not there
// is made, with that name for people; one that is there keeps its keys. Where the homeserver lets application services
// create devices and act as them (MSC4190, MSC4326: Synapse), the registration's token does; elsewhere (Dendrite) the device
// logs in and has a token of its own, for as long as nobody logs it in again.
func (a Agent) LogIn(ctx context.Context, device id.DeviceID, name string) (Agent, error) {
	if a.hs.Own(a.who.user) { // its devices can be made before it is known, and then cannot be used
		if err := a.hs.register(ctx, a.who); errors.Is(err, ErrUnavailable) {
			return Agent{}, err
		}
	}
	masked := Agent{a.hs, identity{token: a.who.token, user: a.who.user, device: device}}
	err := a.hs.request(ctx, a.who, "create a device", http.MethodPut, nil, map[string]string{"display_name": name}, nil, "v3", "devices", device)
	if errors.Is(err, ErrUnavailable) {
		return Agent{}, err
	}
	if err == nil { // Dendrite lets us rename a device that is there, but not act as it
		is, err := masked.Whoami(ctx)
		if err != nil || is.Device == device {
			return masked, err
		}
	}
	return a.logIn(ctx, device, name)
}

// logIn has the device log in.
func (a Agent) logIn(ctx context.Context, device id.DeviceID, name string) (Agent, error) {
	var r mautrix.RespLogin
	const op = "log in a device"
	err := a.hs.request(ctx, identity{token: a.who.token}, op, http.MethodPost, nil, &mautrix.ReqLogin{
		Type:                     mautrix.AuthTypeAppservice,
		Identifier:               mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: string(a.who.user)},
		DeviceID:                 device,
		InitialDeviceDisplayName: name,
	}, &r, "v3", "login")
	if err != nil {
		return Agent{}, err
	}
	if r.UserID != a.who.user || r.DeviceID != device || r.AccessToken == "" {
		return Agent{}, &Error{Op: op, Err: fmt.Errorf("the answer is for %q of %q", r.DeviceID, r.UserID)}
	}
	return Agent{a.hs, identity{token: r.AccessToken, user: a.who.user, device: device, own: true}}, nil
}

// LogOut removes the device of an agent that LogIn made.
func (a Agent) LogOut(ctx context.Context) error {
	if a.who.own {
		return a.hs.request(ctx, a.who, "log out a device", http.MethodPost, nil, struct{}{}, nil, "v3", "logout")
	}
	return a.hs.request(ctx, a.who, "remove a device", http.MethodDelete, nil, struct{}{}, nil, "v3", "devices", a.who.device)
}

// Devices lists the devices of the agent's user.
func (a Agent) Devices(ctx context.Context) ([]id.DeviceID, error) {
	var r struct {
		Devices []struct {
			ID id.DeviceID `json:"device_id"`
		} `json:"devices"`
	}
	if err := a.hs.request(ctx, a.who, "list devices", http.MethodGet, nil, nil, &r, "v3", "devices"); err != nil {
		return nil, err
	}
	devices := make([]id.DeviceID, len(r.Devices))
	for i, d := range r.Devices {
		devices[i] = d.ID
	}
	return devices, nil
}

// Enroll has the homeserver know the agent's user, if that is one of ours: others can invite it then.
func (a Agent) Enroll(ctx context.Context) error {
	if !a.hs.Own(a.who.user) {
		return nil
	}
	return a.hs.register(ctx, a.who)
}

// Client is the agent for libraries that make requests by themselves. They count and are held back like all others; their
// errors are the library's.
func (a Agent) Client() *mautrix.Client {
	client := a.client()
	client.Client = &http.Client{Transport: guard{a.hs}, Timeout: libraryTimeout, CheckRedirect: a.hs.http.CheckRedirect}
	return client
}

// A guard makes requests of libraries as far as the breaker and the bound on requests at a time allow.
type guard struct{ hs *Homeserver }

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	const op = "a request about keys"
	h := g.hs
	if err := h.permit(op, nil); err != nil {
		return nil, err
	}
	release, err := h.slots.take(r.Context(), "")
	if err != nil {
		h.breaker.abandoned()
		return nil, &Error{Op: op, Err: err}
	}
	defer release()
	h.counters.requests.Add(1)
	sent := h.breaker.mark()
	answer, err := h.http.Transport.RoundTrip(r)
	switch {
	case err != nil:
		h.judge(r.Context(), sent, &Error{Op: op, Err: err})
		return nil, &Error{Op: op, Err: bare(err)}
	case answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= http.StatusInternalServerError:
		h.judge(r.Context(), sent, &Error{Op: op, Status: answer.StatusCode})
	default:
		h.judge(r.Context(), sent, nil)
	}
	return answer, nil
}
