package matrixrtc

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"callserver/signalling/homeserver"
	"callserver/signalling/matrixrtc/leave"
	"callserver/signalling/matrixrtc/member"
)

// delayed is a homeserver with one delayed event, syd_1: alice's leave from the room.
type delayed struct{ trial error }

func (d delayed) Try(context.Context) error { return d.trial }

func (d delayed) Do(_ context.Context, _ leave.Verb, _, delay string) error {
	if delay != "syd_1" {
		return &homeserver.Error{Op: "test", Status: http.StatusNotFound, Code: "M_NOT_FOUND"}
	}
	return nil
}

func (d delayed) Scheduled(ctx context.Context, user, delay string) (homeserver.Scheduled, error) {
	if err := d.Do(ctx, leave.Restart, user, delay); err != nil {
		return homeserver.Scheduled{}, err
	}
	key := "_@alice:example.org_DEVICE_m.call"
	return homeserver.Scheduled{Room: "!abc:example.org", Type: member.TypeState, StateKey: &key, Content: json.RawMessage("{}"), Delay: time.Hour}, nil
}

// forgetful is a store that is not asked again.
type forgetful struct{}

func (forgetful) Load(context.Context) ([]leave.Job, error)   { return nil, nil }
func (forgetful) Apply(context.Context, []leave.Change) error { return nil }

// delegating is a world whose homeserver has delayed events that work.
func delegating(t *testing.T) (*world, *leave.Keeper) {
	t.Helper()
	k, err := leave.New(t.Context(), leave.Options{Homeservers: map[string]leave.Homeserver{"example.org": delayed{}}, Store: forgetful{}})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = k.Run(context.Background()) })
	t.Cleanup(func() {
		_ = k.Close() // forgets
		running.Wait()
	})
	for late := time.Now().Add(10 * time.Second); !k.Real(); runtime.Gosched() {
		if time.Now().After(late) {
			t.Fatal("the trial does not end")
		}
	}
	return newWorld(t, func(o *Options) { o.Leaves = k }), k
}

const delayFields = `"delay_timeout":3600000,"delay_cs_api_url":"https://matrix.example.org",`

func TestDelegation(t *testing.T) {
	w, k := delegating(t)
	probe := w.do(t, http.MethodPost, "/delegate_delayed_leave", "")
	expect(t, probe, http.StatusBadRequest, "M_NOT_JSON") // anything but 404
	expect(t, w.do(t, http.MethodGet, "/livekit/jwt/delegate_delayed_leave", ""), http.StatusMethodNotAllowed, "M_UNRECOGNIZED")

	with := func(body, id string) string { return `{"delay_id":"` + id + `",` + delayFields + body[1:] }
	w.granted(t, w.do(t, http.MethodPost, "/sfu/get", with(sfuGetBody("T"), "syd_1")))
	w.granted(t, w.do(t, http.MethodPost, "/get_token", with(getTokenBody("T", "@alice:example.org"), "syd_1")))
	expect(t, w.do(t, http.MethodPost, "/delegate_delayed_leave", with(getTokenBody("T", "@alice:example.org"), "syd_1")), http.StatusOK, "")
	if s := k.Stats(); s.Delegated != 3 || s.Held != 1 {
		t.Errorf("three requests about one leave: %+v", s)
	}

	for _, tt := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"an unknown id", "/sfu/get", with(sfuGetBody("T"), "syd_2"), http.StatusBadRequest, "M_INVALID_PARAM"},
		{"an unknown id, delegated alone", "/delegate_delayed_leave", with(getTokenBody("T", "@alice:example.org"), "../x"), http.StatusBadRequest, "M_INVALID_PARAM"},
		{"no id", "/delegate_delayed_leave", getTokenBody("T", "@alice:example.org"), http.StatusBadRequest, "M_BAD_JSON"},
		{"an id without a time", "/sfu/get", `{"delay_id":"syd_1",` + sfuGetBody("T")[1:], http.StatusBadRequest, "M_BAD_JSON"},
		{"a time without an id", "/sfu/get", `{` + delayFields + sfuGetBody("T")[1:], http.StatusBadRequest, "M_BAD_JSON"},
		{"no time at all", "/sfu/get", `{"delay_id":"syd_1","delay_timeout":0,` + sfuGetBody("T")[1:], http.StatusBadRequest, "M_BAD_JSON"},
		{"a token that is not known", "/delegate_delayed_leave", with(getTokenBody("U", "@alice:example.org"), "syd_1"), http.StatusUnauthorized, "M_UNAUTHORIZED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, w.do(t, http.MethodPost, tt.path, tt.body), tt.status, tt.code)
		})
	}
}
