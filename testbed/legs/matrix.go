package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// typeMember is the state event of a member of a room's call.
const typeMember = "org.matrix.msc3401.call.member"

// hold is how long the homeserver keeps a sync that has nothing to tell.
const hold = 30 * time.Second

// An account is one user's client of the Client-Server API. Safe for concurrent use.
type account struct {
	base  string // of the homeserver
	http  *http.Client
	token string
	room  string
}

// An incoming event of a room.
type incoming struct {
	Type     string          `json:"type"`
	Sender   string          `json:"sender"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// request asks for one thing.
func (a *account) request(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.base+"/_matrix/client/v3/"+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+a.token)
	answer, err := a.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %.60s: %d %.200s", method, path, answer.StatusCode, text)
	}
	return json.Unmarshal(text, out)
}

// send sends an event to the room.
func (a *account) send(ctx context.Context, kind, transaction string, content any) error {
	var sent struct{}
	return a.request(ctx, http.MethodPut, "rooms/"+url.PathEscape(a.room)+"/send/"+kind+"/"+transaction, content, &sent)
}

// sync hears what came after a place, the first time nothing but where to begin.
func (a *account) sync(ctx context.Context, since string) (next string, events []incoming, err error) {
	query := url.Values{"filter": {a.filter()}, "timeout": {"0"}, "set_presence": {"offline"}}
	if since != "" {
		query.Set("since", since)
		query.Set("timeout", fmt.Sprint(hold.Milliseconds()))
	}
	var answer struct {
		Next  string `json:"next_batch"`
		Rooms struct {
			Join map[string]struct {
				Timeline struct {
					Events  []incoming `json:"events"`
					Limited bool       `json:"limited"`
				} `json:"timeline"`
			} `json:"join"`
		} `json:"rooms"`
	}
	if err := a.request(ctx, http.MethodGet, "sync?"+query.Encode(), nil, &answer); err != nil {
		return since, nil, err
	}
	timeline := answer.Rooms.Join[a.room].Timeline
	if since == "" {
		return answer.Next, nil, nil
	}
	return answer.Next, timeline.Events, nil
}

// filter leaves out what is neither of a call nor of its members.
func (a *account) filter() string {
	nothing := map[string]any{"not_types": []string{"*"}}
	text, _ := json.Marshal(map[string]any{ // of text: no error
		"presence": nothing, "account_data": nothing,
		"room": map[string]any{
			"rooms": []string{a.room}, "state": nothing, "ephemeral": nothing, "account_data": nothing,
			"timeline": map[string]any{"limit": 50, "types": []string{"m.call.answer", "m.call.candidates", "m.call.hangup", "m.call.reject", typeMember}},
		},
	})
	return string(text)
}
