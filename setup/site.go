// Package setup is a new installation: what an operator answers becomes the files by which callserver and its homeserver
// know each other, and the steps that are left. It owns their text, and the fresh secrets in the files. It never asks,
// and never touches a disk or a network.
package setup

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A Site is what an operator says about an installation: each field as one of the checks below returned it.
type Site struct {
	ServerName    string // of the homeserver: what stands after the colon of a user's id
	Homeserver    string // one of Homeservers
	ClientAPI     string // base URL at which clients reach the homeserver
	HomeserverURL string // base URL at which callserver reaches it
	PublicURL     string // base URL at which clients reach callserver
	Proxy         string // one of Proxies
	Advertise     string // addresses that clients send media to, with commas between; empty: those of the machine
	Wide          bool   // with the wide registration, too
	Listen        string // host:port of callserver, behind the proxy
	Directory     string // absolute: where the files will be

	ServicePath, SFUPath string // of the authoriser and of the media server, below PublicURL
}

// Homeservers and Proxies are the words for what an operator runs. "other" stands for everything else.
var (
	Homeservers = []string{"synapse", "dendrite", "other"}
	Proxies     = []string{"nginx", "caddy", "traefik", "other"}
)

// CheckServerName returns the name as it is written everywhere, or what is wrong with it.
func CheckServerName(text string) (string, error) {
	host := text
	if h, port, err := net.SplitHostPort(text); err == nil {
		host = h
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			host = "" // "https" is no port: this is a URL
		}
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil {
		return text, nil
	}
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}
	if host == "" || strings.ContainsFunc(host, odd) {
		return "", fmt.Errorf("%q is not a server name: write what stands after the colon of a user's id, for example example.org", text)
	}
	return text, nil
}

// CheckURL returns a base URL without the slash at its end, or what is wrong with it.
func CheckURL(text string) (string, error) {
	u, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil ||
		strings.ContainsAny(text, " \"'`{};") {
		return "", fmt.Errorf("%q is not a base URL: write scheme and host, for example https://call.example.org", text)
	}
	return u.String(), nil
}

// CheckPublicURL is CheckURL for callserver itself, which answers at the root of its host.
func CheckPublicURL(text string) (string, error) {
	base, err := CheckURL(text)
	if err != nil {
		return "", err
	}
	if u, err := url.Parse(base); err != nil || u.Path != "" {
		return "", fmt.Errorf("%q has a path: give callserver a host of its own, for example https://call.example.org", text)
	}
	return base, nil
}

// CheckAddresses returns IP addresses with ", " between, or the first that is none. Names are not resolved.
func CheckAddresses(text string) (string, error) {
	var addresses []string
	for item := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		a, err := netip.ParseAddr(item)
		if err != nil || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return "", fmt.Errorf("%q is not an IP address that clients can send to", item)
		}
		addresses = append(addresses, a.String())
	}
	return strings.Join(addresses, ", "), nil
}

// CheckListen returns a host:port, or what is wrong with it.
func CheckListen(text string) (string, error) {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", fmt.Errorf("%q is not host:port: write for example 127.0.0.1:7880", text)
	}
	return text, nil
}

// CheckChoice returns a check for one of some words.
func CheckChoice(words []string) func(string) (string, error) {
	return func(text string) (string, error) {
		for _, w := range words {
			if strings.EqualFold(text, w) {
				return w, nil
			}
		}
		return "", fmt.Errorf("%q is none of %s", text, strings.Join(words, ", "))
	}
}

// CheckYes returns "yes" or "no".
func CheckYes(text string) (string, error) {
	switch strings.ToLower(text) {
	case "y", "yes", "true":
		return "yes", nil
	case "n", "no", "false":
		return "no", nil
	}
	return "", fmt.Errorf("%q is neither yes nor no", text)
}

// host returns the name in a base URL, and its port: the scheme's, where none is written.
func host(base string) (name, port string) {
	u, err := url.Parse(base)
	if err != nil {
		return "", "" // CheckURL has passed
	}
	switch port = u.Port(); {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return u.Hostname(), port
}

// local is the base URL at which programs on this machine reach callserver.
func (s Site) local() string {
	name, port, _ := net.SplitHostPort(s.Listen)
	if a, err := netip.ParseAddr(name); name == "" || err == nil && a.IsUnspecified() {
		name = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(name, port)
}

// pushURL is the base URL at which the homeserver reaches callserver: directly if they are on one machine.
func (s Site) pushURL() string {
	name, _ := host(s.HomeserverURL)
	if a, err := netip.ParseAddr(name); name == "localhost" || err == nil && a.IsLoopback() {
		return s.local()
	}
	return s.PublicURL
}
