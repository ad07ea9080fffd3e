// Package config is the operator's configuration: one YAML file and the environment over it. It owns the keys, their
// defaults and what is wrong with them. It never opens a socket or asks anyone: everything here is checked offline.
package config

import (
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Development credentials: used when the file names no key, and refused wherever others could reach them.
const (
	DevelopmentKey    = "devkey"
	DevelopmentSecret = "secret"
)

// Config is a complete, valid configuration. It is read-only after Load.
type Config struct {
	HTTP  HTTP
	TLS   TLS
	ACME  ACME
	Media Media
	TURN  TURN
	Admin Admin
	Room  Room
	Data  Data
	Log   Log

	Membership Membership
	Bot        Bot
	Limits     Limits

	Keys         map[string]string // API key -> secret, inline and from the keys file
	Homeservers  []Homeserver
	RemoteUsers  bool // users of other homeservers may watch calls that are open
	Servers      Servers
	MatrixRooms  []MatrixRoom   // rooms whose calls differ from the others
	FederationCA *x509.CertPool // the system's and the file's, nil = the system's
	// FederationPrivate are networks inside which other homeservers may be.
	FederationPrivate []netip.Prefix

	// Warnings are findings that do not keep the server from starting.
	Warnings []string
}

// Servers say whose users may use this server, by globs of server names. Without Allow, those of all but Deny may.
type Servers struct{ Allow, Deny []string }

// HTTP is the address that clients reach.
type HTTP struct {
	Listen    string   // host:port
	PublicURL *url.URL // how clients reach Listen, nil = by the Host of their request

	ProxyProtocol []netip.Prefix // proxies that begin each connection with a header of the PROXY protocol
}

// TLS is the certificate that HTTP.Listen shows. The zero value means that it is not in files.
type TLS struct{ Certificate, Key string } // names of files, relative to where the server was started

// ACME says which certificates HTTP.Listen gets from an authority and shows. Without domains it gets none.
type ACME struct {
	Domains   []string
	Email     string
	Directory string         // URL of the authority, "" = Let's Encrypt
	Roots     *x509.CertPool // the system's and the file's, nil = the system's
	HTTPPort  int            // Off = the authority is not answered there
	Storage   string         // a directory beside Data.File
}

// Secure tells whether HTTP.Listen speaks HTTPS.
func (c *Config) Secure() bool { return c.TLS != (TLS{}) || len(c.ACME.Domains) > 0 }

// Media is where RTP goes.
type Media struct {
	UDPPort   int          // 0 = any free port, Off = none
	TCPPort   int          // likewise, for ICE over TCP
	Advertise []Advertised // announced in place of the addresses of the interfaces
	STUN      []string     // host:port of servers that know our public address, which is announced too

	Interfaces []string // globs of the names of network interfaces in use; empty = all but those of containers and virtual machines
	ICELite    bool     // clients do the checks
}

// Advertised is an address that clients send to, and what is behind it.
type Advertised struct {
	Addr             netip.Addr
	UDPPort, TCPPort int        // that lead to Media's; 0 = the same, Off = none does
	Local            netip.Addr // our address behind it; the zero one = any of the family
}

// Off stands for a port that is not opened.
const Off = -1

// Admin is the operator's listener; an empty Listen means none.
type Admin struct{ Listen string }

// Room holds what rooms do unless their creator says otherwise.
type Room struct{ AutoCreate bool }

// Membership is what is done about the events by which clients say that they are in a call.
type Membership struct {
	Delegate bool          // delayed leaves are taken over where that is known to work
	Sweep    bool          // memberships of participants who are gone are cleared
	Grace    time.Duration // who publishes without a membership is not forwarded after that; 0 = is
}

// Bot is this server's own user in Matrix rooms.
type Bot struct {
	Commands    bool     // it answers them
	Invite      []string // who may invite it: globs of user ids; none means the users of its own homeserver
	Bridge      bool     // calls of older clients are put into the rooms' calls, where people agree
	ElementCall string   // base URL of an Element Call page, for links; "" = none
	Recovery    string   // file of recovery keys, relative to where the server was started; "" = beside Data.File
}

// Data is what survives a restart.
type Data struct {
	File    string // relative to where the server was started; empty: nothing does
	Default bool   // the operator did not choose it: what needs it can be done without
}

// Log says what reaches standard error.
type Log struct {
	Level       slog.Level
	JSON        bool
	Identifiers bool // who, where and from which address, instead of pseudonyms
}

// Limits are what the operator allows. Zero means no limit.
type Limits struct {
	Requests  Requests
	Room      RoomLimits
	UserRooms int // calls that one Matrix user may be in at once
	Bitrate   Bitrate
	Overload  Overload
	Relay     RelayLimits
}

// Overload says from where on load is shed.
type Overload struct {
	CPU     int // percent of the cores that the process may use
	Packets int // sent to clients, a second
}

// Requests bound the token requests of Matrix clients, a minute each.
type Requests struct {
	Address int // of one client address
	User    int // of one Matrix user
	Server  int // of the users of one homeserver together
}

// RoomLimits are what one room may hold.
type RoomLimits struct {
	Participants int      // people in it at once
	Sources      []string // what they may publish, in the words of access tokens; empty = everything
}

// Bitrate bounds media, in bits/s.
type Bitrate struct {
	Participant int64 // that one participant publishes
	Server      int64 // that is sent to all participants together
}

// MatrixRoom is a Matrix room whose calls differ from the others.
type MatrixRoom struct {
	Room          string // its id
	PublishRemote bool   // users of other homeservers may publish in them
	RoomLimits           // in place of those for every room, where set
}

// Homeserver is a Matrix homeserver whose users may open rooms here.
type Homeserver struct {
	ServerName string
	ClientAPI  string // base URL of its client API, "" = not used
	Federation string // base URL that replaces server-name resolution, "" = resolve

	Registrations []File // application service registrations that the homeserver has too
	SigningKey    File   // the key with which it signs requests to others; no name means none
	Unverified    bool   // its users are let in where nobody can tell whether they are in the Matrix room; by default they are not
	PublishRemote bool   // users of other homeservers may publish in calls that its users hold
}

// File is one that a setting names, as it was when the configuration was loaded.
type File struct {
	Name string
	Text []byte
}

// Development tells whether the well-known development key opens this server.
func (c *Config) Development() bool { return c.Keys[DevelopmentKey] == DevelopmentSecret }

// Loopback tells whether an address (host:port) is reachable from this machine only.
func Loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}
