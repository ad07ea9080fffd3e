package homeserver

import (
	"context"
	"errors"
	"net/url"
	"strconv"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// ErrSender means that the homeserver has no mail for the sender of a registration, which Synapse has not.
var ErrSender = errors.New("this homeserver keeps no mail for the sender of a registration: write the registration anew with callserver init, whose sender is another user than the bot")

// Mail is what a homeserver keeps for one device until the device asks for what came after it: messages, and whose keys
// changed (Client-Server API, Send-to-Device messaging; Device management).
type Mail struct {
	Next    string         // what to ask with for what comes after this
	Events  []*event.Event // as they were sent, oldest first; their content is not parsed
	Changed []id.UserID    // whose devices are others now
	Gap     bool           // there may be more users whose devices are others
	OneTime int            // keys of the device that are left for others to begin with; -1 if unsaid
}

// Empty reports whether it contains nothing to act on.
func (m *Mail) Empty() bool { return len(m.Events)+len(m.Changed) == 0 && !m.Gap }

// Mail waits up to half a minute for mail of the agent's device, after the place where other mail ended; the first, for an
// empty place, comes at once. It asks by /sync with a filter that leaves every room out. M_UNKNOWN_TOKEN means that the
// device is no more. It is the caller who spares a homeserver that answers at once with nothing.
func (a Agent) Mail(ctx context.Context, since string) (Mail, error) {
	query := url.Values{"timeout": {"0"}, "filter": {pollFilter([]id.RoomID{}, nothing)}, "set_presence": {"offline"}}
	if since != "" {
		query.Set("timeout", strconv.FormatInt(pollWait.Milliseconds(), 10))
		query.Set("since", since)
	}
	var r struct {
		Next     string     `json:"next_batch"`
		ToDevice syncEvents `json:"to_device"`
		Lists    struct {
			Changed []id.UserID `json:"changed"`
		} `json:"device_lists"`
		OneTime map[id.KeyAlgorithm]int `json:"device_one_time_keys_count"`
	}
	err := a.hs.hold(ctx, pollWait, a.who, "ask for mail of a device", query, &r, "v3", "sync")
	code := Code(err)
	switch {
	case err == nil:
	case a.hs.sends(a.who.user) && code == "M_UNKNOWN":
		return Mail{}, ErrSender // and not unavailable: it stays so
	case since != "" && (code == "M_INVALID_PARAM" || code == "M_UNKNOWN") && !errors.Is(err, ErrUnavailable):
		return a.Mail(ctx, "") // the homeserver has forgotten the place, not the mail
	default:
		return Mail{}, err
	}
	m := Mail{Next: r.Next, Changed: r.Lists.Changed, Gap: since == "", OneTime: -1}
	if r.OneTime != nil {
		m.OneTime = r.OneTime[id.KeyAlgorithmSignedCurve25519]
	}
	for _, raw := range r.ToDevice.Events {
		e, err := parseEvent(raw, event.ToDeviceEventType)
		if err != nil {
			a.hs.counters.badEvents.Add(1)
			continue
		}
		m.Events = append(m.Events, e)
	}
	return m, nil
}
