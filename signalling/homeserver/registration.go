package homeserver

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"maunium.net/go/mautrix/id"
)

// scopeIsJoined lets the bearer of an application service's token ask who is in a room (MSC4502).
const scopeIsJoined = "urn:matrix:client:io.element.msc4502:rooms:is_joined"

// The users of the registrations that this program writes.
const (
	botLocalpart = "_callserver"
	// Senders are outside the namespace of the bot and ghosts, which is exclusive. The bot is none, because Synapse keeps no
	// mail for a sender.
	narrowLocalpart = "_callserver-narrow"
	wideLocalpart   = "_callserver-wide"
)

// A Registration is how a homeserver and an application service know each other (Application Service API,
// Registration). It is read-only once it is parsed, and then safe for concurrent use.
type Registration struct {
	ID              string     `yaml:"id"`
	URL             *string    `yaml:"url"` // where events are pushed; nil (null) means that none are
	AppToken        string     `yaml:"as_token"`
	ServerToken     string     `yaml:"hs_token"`
	SenderLocalpart string     `yaml:"sender_localpart"`
	RateLimited     bool       `yaml:"rate_limited"`
	Devices         bool       `yaml:"io.element.msc4190,omitempty"` // it may make devices for its users (MSC4190)
	Ephemeral       bool       `yaml:"receive_ephemeral,omitempty"`
	Scopes          []string   `yaml:"io.element.msc4502.scopes,omitempty"`
	ProxyPrefix     string     `yaml:"io.element.msc4512.proxy_prefix,omitempty"` // paths that the homeserver hands on to ProxyURL
	ProxyURL        string     `yaml:"io.element.msc4512.proxy_url,omitempty"`    // base URL
	Namespaces      Namespaces `yaml:"namespaces"`

	users []*regexp.Regexp // of Namespaces.Users, for whole ids
}

// Namespaces say which ids an application service is about.
type Namespaces struct {
	Users   []Namespace `yaml:"users"`
	Aliases []Namespace `yaml:"aliases"`
	Rooms   []Namespace `yaml:"rooms"`
}

// A Namespace is a set of ids; exclusive means that nobody else may register them.
type Namespace struct {
	Exclusive bool   `yaml:"exclusive"`
	Regex     string `yaml:"regex"`
}

// NarrowRegistration makes a registration with new tokens for the bot and ghosts of this program. The
// homeserver pushes the events of their rooms to url.
func NarrowRegistration(serverName, url string) *Registration {
	r := newRegistration("callserver", narrowLocalpart)
	r.URL = &url
	r.Namespaces.Users = []Namespace{{Exclusive: true, Regex: "@_callserver(_.*)?:" + regexp.QuoteMeta(serverName)}}
	r.Namespaces.Aliases = []Namespace{{Exclusive: true, Regex: "#_callserver_.*:" + regexp.QuoteMeta(serverName)}}
	return r
}

// WideRegistration makes a registration with new tokens that allows requests in the name of every user of the
// homeserver, and is told no events.
func WideRegistration(serverName string) *Registration {
	r := newRegistration("callserver-wide", wideLocalpart)
	r.Namespaces.Users = []Namespace{{Regex: "@.*:" + regexp.QuoteMeta(serverName)}}
	return r
}

func newRegistration(name, sender string) *Registration {
	return &Registration{
		ID: name, AppToken: newToken(), ServerToken: newToken(), SenderLocalpart: sender, Devices: true,
		Scopes:     []string{scopeIsJoined},
		Namespaces: Namespaces{Aliases: []Namespace{}, Rooms: []Namespace{}},
	}
}

func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// ParseRegistration reads a registration file and reports everything that is wrong with it. Keys that it does not know
// are for the homeserver and pass.
func ParseRegistration(text []byte) (*Registration, error) {
	r := &Registration{}
	if err := yaml.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("not a registration file: %w", err)
	}
	var errs []error
	for _, required := range []struct{ key, value string }{
		{"id", r.ID}, {"as_token", r.AppToken}, {"hs_token", r.ServerToken}, {"sender_localpart", r.SenderLocalpart},
	} {
		if required.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", required.key))
		}
	}
	if r.AppToken != "" && r.AppToken == r.ServerToken {
		errs = append(errs, errors.New("as_token and hs_token are the same: each side must prove itself by its own"))
	}
	if r.URL != nil && *r.URL == "" {
		r.URL = nil
	}
	if r.URL != nil {
		if u, err := url.Parse(*r.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("url: %q is not a base URL; null means that no events are pushed", *r.URL))
		}
	}
	for i, n := range r.Namespaces.Users {
		whole, err := regexp.Compile("^(?:" + n.Regex + ")$")
		if err != nil {
			errs = append(errs, fmt.Errorf("namespaces.users[%d]: %w", i, err))
			continue
		}
		r.users = append(r.users, whole)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

// YAML writes the registration as homeservers read it.
func (r *Registration) YAML() ([]byte, error) { return yaml.Marshal(r) }

// Receives reports whether the homeserver pushes events to this registration.
func (r *Registration) Receives() bool { return r.URL != nil }

// covers reports whether the registration may act for a user. Homeservers anchor the expressions less strictly.
func (r *Registration) covers(user id.UserID) bool {
	return slices.ContainsFunc(r.users, func(x *regexp.Regexp) bool { return x.MatchString(string(user)) })
}

// owns reports whether nobody else may register a user.
func (r *Registration) owns(user id.UserID) bool {
	for i, x := range r.users {
		if r.Namespaces.Users[i].Exclusive && x.MatchString(string(user)) {
			return true
		}
	}
	return false
}

// Describe says in a few words what the registration is for.
func (r *Registration) Describe() string {
	var does []string
	if r.Receives() {
		does = append(does, "receives events")
	}
	for _, n := range r.Namespaces.Users {
		does = append(does, "acts for "+n.Regex)
	}
	if slices.Contains(r.Scopes, scopeIsJoined) {
		does = append(does, "may ask who is in a room")
	}
	if len(does) == 0 {
		return r.ID + " does nothing"
	}
	return r.ID + " " + strings.Join(does, ", ")
}

// String does not show the tokens.
func (r *Registration) String() string { return r.Describe() }

// receiver is the registration that the homeserver pushes events to.
func (h *Homeserver) receiver() *Registration {
	return h.registration((*Registration).Receives)
}

func (h *Homeserver) registration(fits func(*Registration) bool) *Registration {
	if i := slices.IndexFunc(h.options.Registrations, fits); i >= 0 {
		return h.options.Registrations[i]
	}
	return nil
}

// Sender is this program's own user of the registration that receives events: the bot, or in registrations of old and
// of others the sender. Whoever sees a room through it is this user. It is empty if there is no such registration.
func (h *Homeserver) Sender() id.UserID {
	r := h.receiver()
	if r == nil {
		return ""
	}
	if bot := id.NewUserID(botLocalpart, h.Name()); r.covers(bot) {
		return bot
	}
	return id.NewUserID(r.SenderLocalpart, h.Name())
}

// sends reports whether a user is the sender of a registration, as the homeserver understands it.
func (h *Homeserver) sends(user id.UserID) bool {
	return h.registration(func(r *Registration) bool { return id.NewUserID(r.SenderLocalpart, h.Name()) == user }) != nil
}

// Own reports whether a user is this program's: the sender of a registration, or one that nobody else may register.
func (h *Homeserver) Own(user id.UserID) bool {
	return h.Local(user) && (h.sends(user) || h.registration(func(r *Registration) bool { return r.owns(user) }) != nil)
}
