package device

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mau.fi/util/dbutil"
	"go.uber.org/goleak"
	"maunium.net/go/mautrix/id"
	_ "modernc.org/sqlite"

	"callserver/signalling/homeserver"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	bot   = id.UserID("@_callserver:example.org")
	alice = id.UserID("@_callserver_alice:example.org")
	room  = id.RoomID("!room:example.org")
)

type object = map[string]any

// A keyserver is a homeserver as far as devices and their keys go: one that lets application services act as devices, as
// Synapse does, or one that has them log in, as Dendrite does.
type keyserver struct {
	logins bool

	mu       sync.Mutex
	changed  *sync.Cond
	devices  map[id.UserID]map[string]*station
	tokens   map[string]*station
	signing  map[id.UserID]object // what device_signing/upload had
	account  map[string]json.RawMessage
	lists    []id.UserID // whose devices changed, in order
	members  []id.UserID
	refused  map[string]int // status by the last part of the path
	requests []string
}

// A station is a device as the homeserver knows it.
type station struct {
	user    id.UserID
	name    string
	keys    object
	oneTime []object
	inbox   []object
}

func newKeyserver(logins bool) *keyserver {
	k := &keyserver{
		logins: logins, devices: map[id.UserID]map[string]*station{}, tokens: map[string]*station{}, signing: map[id.UserID]object{},
		account: map[string]json.RawMessage{}, refused: map[string]int{}, members: []id.UserID{bot, alice},
	}
	k.changed = sync.NewCond(&k.mu)
	return k
}

func (k *keyserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var in object
	_ = json.Unmarshal(body, &in)
	path, _ := strings.CutPrefix(r.URL.EscapedPath(), "/_matrix/client/")
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	stop := context.AfterFunc(r.Context(), k.changed.Broadcast)
	defer stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests = append(k.requests, r.Method+" "+strings.Join(parts, "/"))
	status, out := k.answer(r, parts[1:], in, body)
	if refused := k.refused[parts[len(parts)-1]]; refused != 0 {
		status, out = refused, object{"errcode": "M_UNKNOWN"}
	}
	text, _ := json.Marshal(out)
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

var nowhere = object{"errcode": "M_UNRECOGNIZED"}

func (k *keyserver) answer(r *http.Request, parts []string, in object, body []byte) (int, any) {
	user := id.UserID(r.URL.Query().Get("user_id"))
	var self *station
	if s := k.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]; s != nil {
		user, self = s.user, s
	} else if !k.logins {
		self = k.devices[user][r.URL.Query().Get("device_id")]
	}
	switch parts[0] {
	case "register":
		return 400, object{"errcode": "M_USER_IN_USE"}
	case "account":
		if self == nil {
			return 200, object{"user_id": user}
		}
		return 200, object{"user_id": user, "device_id": self.name}
	case "login":
		return k.login(in)
	case "logout":
		delete(k.devices[user], self.name)
		return 200, object{}
	case "devices":
		return k.ofDevices(r.Method, user, parts[1:])
	case "user":
		return k.accountData(r.Method, parts[1]+parts[3], body)
	case "rooms":
		return k.ofRoom(parts[2:])
	case "keys":
		return k.ofKeys(strings.Join(parts[1:], "/"), user, self, in)
	case "sendToDevice":
		k.send(user, parts[1], in)
		return 200, object{}
	case "sync":
		return k.sync(r, self)
	}
	return 404, nowhere
}

func (k *keyserver) login(in object) (int, any) {
	user := id.UserID(in["identifier"].(object)["user"].(string))
	s := k.device(user, in["device_id"].(string))
	token := fmt.Sprint("token", len(k.tokens))
	maps.DeleteFunc(k.tokens, func(_ string, other *station) bool { return other == s })
	k.tokens[token] = s
	return 200, object{"user_id": user, "device_id": s.name, "access_token": token}
}

func (k *keyserver) device(user id.UserID, name string) *station {
	if k.devices[user] == nil {
		k.devices[user] = map[string]*station{}
	}
	if k.devices[user][name] == nil {
		k.devices[user][name] = &station{user: user, name: name}
	}
	return k.devices[user][name]
}

func (k *keyserver) ofDevices(method string, user id.UserID, which []string) (int, any) {
	switch {
	case method == "GET":
		all := []object{}
		for name := range k.devices[user] {
			all = append(all, object{"device_id": name})
		}
		return 200, object{"devices": all}
	case method == "DELETE":
		delete(k.devices[user], which[0])
	case k.logins && k.devices[user][which[0]] == nil:
		return 404, object{"errcode": "M_FORBIDDEN"}
	default:
		k.device(user, which[0])
	}
	return 200, object{}
}

func (k *keyserver) accountData(method, name string, body []byte) (int, any) {
	if method == "PUT" {
		k.account[name] = body
		return 200, object{}
	}
	if k.account[name] == nil {
		return 404, object{"errcode": "M_NOT_FOUND"}
	}
	return 200, k.account[name]
}

func (k *keyserver) ofRoom(what []string) (int, any) {
	switch {
	case what[0] == "joined_members":
		joined := object{}
		for _, user := range k.members {
			joined[string(user)] = object{}
		}
		return 200, object{"joined": joined}
	case what[0] == "state" && what[1] == "m.room.encryption":
		return 200, object{"algorithm": "m.megolm.v1.aes-sha2"}
	}
	return 404, object{"errcode": "M_NOT_FOUND"}
}

func (k *keyserver) ofKeys(what string, user id.UserID, self *station, in object) (int, any) {
	switch what {
	case "upload":
		if keys, ok := in["device_keys"].(object); ok {
			self.keys = keys
			k.lists = append(k.lists, user)
			k.changed.Broadcast()
		}
		if oneTime, ok := in["one_time_keys"].(object); ok {
			for name, key := range oneTime {
				self.oneTime = append(self.oneTime, object{name: key})
			}
		}
		return 200, object{"one_time_key_counts": object{"signed_curve25519": len(self.oneTime)}}
	case "query":
		return 200, k.query(in["device_keys"].(object))
	case "claim":
		claimed := object{}
		for user, devices := range in["one_time_keys"].(object) {
			of := object{}
			for name := range devices.(object) {
				if s := k.devices[id.UserID(user)][name]; s != nil && len(s.oneTime) > 0 {
					of[name], s.oneTime = s.oneTime[0], s.oneTime[1:]
				}
			}
			claimed[user] = of
		}
		return 200, object{"one_time_keys": claimed}
	case "device_signing/upload":
		if k.signing[user] != nil && k.logins {
			return 401, object{"flows": []object{}}
		}
		k.signing[user] = in
		return 200, object{}
	case "signatures/upload":
		for _, signed := range in {
			for name, what := range signed.(object) {
				if s := k.devices[user][name]; s != nil {
					mine := s.keys["signatures"].(object)[string(user)].(object)
					maps.Copy(mine, what.(object)["signatures"].(object)[string(user)].(object))
				}
			}
		}
		return 200, object{}
	}
	return 404, nowhere
}

func (k *keyserver) query(of object) object {
	answer := object{"device_keys": object{}, "master_keys": object{}, "self_signing_keys": object{}, "user_signing_keys": object{}}
	for user := range of {
		devices := object{}
		for name, s := range k.devices[id.UserID(user)] {
			if s.keys != nil {
				devices[name] = s.keys
			}
		}
		answer["device_keys"].(object)[user] = devices
		if signing := k.signing[id.UserID(user)]; signing != nil {
			for _, kind := range []string{"master", "self_signing", "user_signing"} {
				answer[kind+"_keys"].(object)[user] = signing[kind+"_key"]
			}
		}
	}
	return answer
}

func (k *keyserver) send(from id.UserID, kind string, in object) {
	for user, devices := range in["messages"].(object) {
		for name, content := range devices.(object) {
			if s := k.devices[id.UserID(user)][name]; s != nil {
				s.inbox = append(s.inbox, object{"type": kind, "sender": from, "content": content})
			}
		}
	}
	k.changed.Broadcast()
}

// news waits for what came for a device after two places, mail and lists.
func (k *keyserver) news(r *http.Request, self *station, mail, lists int) ([]object, []id.UserID) {
	for r.URL.Query().Get("timeout") != "0" && r.Context().Err() == nil && mail >= len(self.inbox) && lists >= len(k.lists) {
		k.changed.Wait()
	}
	return self.inbox[mail:], k.lists[lists:]
}

func (k *keyserver) sync(r *http.Request, self *station) (int, any) {
	if self == nil {
		return 401, object{"errcode": "M_UNKNOWN_TOKEN"}
	}
	var mail, lists int
	_, _ = fmt.Sscanf(r.URL.Query().Get("since"), "s%d_%d", &mail, &lists)
	events, changed := k.news(r, self, mail, lists)
	return 200, object{
		"next_batch": fmt.Sprintf("s%d_%d", len(self.inbox), len(k.lists)), "to_device": object{"events": events},
		"device_lists": object{"changed": changed},
	}
}

// A desk is one of our devices: its files, and what it was told.
type desk struct {
	*Device
	directory string
	births    chan Birth
	letters   chan Letter
	stop      func()
}

// open starts a user's device with the files of a directory.
func (k *keyserver) open(t *testing.T, server string, user id.UserID, directory string) *desk {
	t.Helper()
	text, err := homeserver.NarrowRegistration("example.org", server).YAML()
	if err != nil {
		t.Fatal(err)
	}
	registration, err := homeserver.ParseRegistration(text)
	if err != nil {
		t.Fatal(err)
	}
	hs, err := homeserver.New(homeserver.Options{ServerName: "example.org", ClientAPI: server, Registrations: []*homeserver.Registration{registration}})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := hs.As(user)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(directory, "data.db")
	raw, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	raw.SetMaxOpenConns(1) // as the program has it: no query inside another
	db, err := dbutil.NewWithDB(raw, "sqlite3")
	if err != nil {
		t.Fatal(err)
	}
	key, err := LoadKey(file + ".key")
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{directory: directory, births: make(chan Birth, 16), letters: make(chan Letter, 16)}
	d.Device, err = New(t.Context(), Options{
		Agent: agent, Vault: Vault{db, key, NewRecovery(filepath.Join(directory, "recovery"))}, Prefix: "TEST", Name: "test",
		Born:   func(_ context.Context, b Birth) { d.births <- b },
		Letter: func(l Letter) { d.letters <- l },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		k.changed.Broadcast()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = hs.Close()
		_ = raw.Close()
	})
	t.Cleanup(d.stop)
	return d
}

func serve(t *testing.T, k *keyserver) string {
	t.Helper()
	s := httptest.NewServer(k)
	t.Cleanup(s.Close)
	return s.URL
}

// next waits for what comes out of a channel.
func next[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("not within 20 s: %s", what)
		panic("unreachable")
	}
}
