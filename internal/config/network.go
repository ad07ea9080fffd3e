package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// networks reads a list of networks in CIDR form.
func (l *loader) networks(key string, v any) (networks []netip.Prefix) {
	for _, item := range items(v) {
		network, err := netip.ParsePrefix(fmt.Sprint(item))
		if err != nil || network.Addr().Is4In6() {
			l.problem(key, fmt.Sprintf("%q is not a network", fmt.Sprint(item)), "list networks with their prefix length, for example [10.0.0.0/8, fd00::/8]")
			continue
		}
		networks = append(networks, network.Masked())
	}
	return networks
}

func privateNetworks(l *loader, key string, v any) {
	l.config.FederationPrivate = l.networks(key, v)
}

func proxyProtocol(l *loader, key string, v any) {
	l.config.HTTP.ProxyProtocol = l.networks(key, v)
	for _, n := range l.config.HTTP.ProxyProtocol {
		if n.Bits() == 0 {
			l.problem(key, n.String()+" is everybody, and who is a proxy may say from which address a client comes", "list the proxies alone, for example [192.0.2.1/32]")
		}
	}
}

// AdvertiseKeys lists the settings of one entry of media.advertise.
func AdvertiseKeys() []string { return []string{"address", "udp_port", "tcp_port", "local"} }

// advertise reads a list of addresses, each alone or with what is behind it.
func advertise(l *loader, key string, v any) {
	for i, item := range items(v) {
		var a Advertised
		var ok bool
		if fields, isMap := item.(map[string]any); isMap {
			a, ok = l.advertised(fmt.Sprintf("%s[%d]", key, i), fields)
		} else {
			a.Addr, ok = l.address(key, item, "an address that clients can send to")
		}
		if ok {
			l.config.Media.Advertise = append(l.config.Media.Advertise, a)
		}
	}
}

func (l *loader) advertised(at string, fields map[string]any) (a Advertised, ok bool) {
	ok = true
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		key, value, right := at+"."+name, fields[name], false
		switch name {
		case "address":
			a.Addr, right = l.address(key, value, "an address that clients can send to")
		case "local":
			a.Local, right = l.address(key, value, "an address of this machine")
		case "udp_port":
			a.UDPPort, right = l.portNumber(key, value)
		case "tcp_port":
			a.TCPPort, right = l.portNumber(key, value)
		default:
			l.unknownField(key, at, name, AdvertiseKeys())
		}
		ok = ok && right
	}
	if _, given := fields["address"]; !given {
		l.problem(at+".address", "is missing", "write the address that clients send to, for example 203.0.113.7")
		return a, false
	}
	if ok && a.Local.IsValid() && a.Local.Is4() != a.Addr.Is4() {
		l.problem(at+".local", a.Local.String()+" is of another family than "+a.Addr.String(), "give an IPv4 address an IPv4 address, and an IPv6 one an IPv6 one")
		return a, false
	}
	return a, ok
}

// unknownField reports a setting that an entry of a list does not have.
func (l *loader) unknownField(key, at, name string, known []string) {
	fix := "an entry has " + strings.Join(known, ", ")
	if s := suggest(name, known); s != "" {
		fix = "did you mean " + at + "." + s + "?"
	}
	l.problem(key, "no such setting", fix)
}

func (l *loader) address(key string, v any, what string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(fmt.Sprint(v))
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		l.problem(key, fmt.Sprintf("%q is not %s", fmt.Sprint(v), what), "list IP addresses, for example [203.0.113.7, 2001:db8::7]; names are not resolved")
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

// portNumber reads a port; off is Off.
func (l *loader) portNumber(key string, v any) (int, bool) {
	if isOff(v) {
		return Off, true
	}
	n, err := strconv.ParseUint(fmt.Sprint(v), 10, 16)
	if err != nil || n == 0 {
		l.problem(key, fmt.Sprintf("%v is not a port", v), "use 1 to 65535, or off")
		return 0, false
	}
	return int(n), true
}

// interfaces reads globs of names of network interfaces.
func interfaces(l *loader, key string, v any) {
	for _, item := range items(v) {
		name := fmt.Sprint(item)
		if _, err := path.Match(name, ""); err != nil || name == "" {
			l.problem(key, fmt.Sprintf("%q is no name of a network interface", name), "list them as `ip address` shows them; * stands for anything: [eth0, \"wg*\"]")
			continue
		}
		l.config.Media.Interfaces = append(l.config.Media.Interfaces, name)
	}
}

// stunServers reads the servers that are asked for our public address.
func stunServers(l *loader, key string, v any) {
	for _, item := range items(v) {
		text := fmt.Sprint(item)
		host, port, err := net.SplitHostPort(text)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil || host == "" {
			l.problem(key, fmt.Sprintf("%q is not host:port", text), "list STUN servers, for example [\"stun.example.org:3478\"]")
			continue
		}
		l.config.Media.STUN = append(l.config.Media.STUN, text)
	}
}
