package standing

import (
	"encoding/json"
	"net/netip"
	"strings"
)

// A ServerACL says which homeservers may take part in a room (Client-Server API, m.room.server_acl). Nil permits all.
type ServerACL struct {
	Allow, Deny []string // globs: * and ?
	NoLiterals  bool     // no server whose name is an IP address
}

// parseACL reads the content of the event. What is not there permits nobody, as homeservers have it.
func parseACL(raw json.RawMessage) *ServerACL {
	var content struct {
		Allow    any `json:"allow"`
		Deny     any `json:"deny"`
		Literals any `json:"allow_ip_literals"`
	}
	_ = json.Unmarshal(raw, &content)
	return &ServerACL{Allow: texts(content.Allow), Deny: texts(content.Deny), NoLiterals: content.Literals == false}
}

// texts are the members of a list that are text.
func texts(v any) (all []string) {
	list, _ := v.([]any)
	for _, member := range list {
		if s, ok := member.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

// Permits reports whether a server may take part.
func (a *ServerACL) Permits(server string) bool {
	if a == nil {
		return true
	}
	host := hostOf(server)
	if a.NoLiterals && literal(host) || Match(a.Deny, host) {
		return false
	}
	return Match(a.Allow, host)
}

// Servers is the operator's own list: which homeservers' users may use this server at all. Globs match the server
// name with or without its port. The zero value permits all.
type Servers struct {
	Allow []string // empty means all
	Deny  []string // counts more than Allow
}

// Permits reports whether users of a server may use this one.
func (s Servers) Permits(server string) bool {
	listed := func(globs []string) bool { return Match(globs, server) || Match(globs, hostOf(server)) }
	return !listed(s.Deny) && (len(s.Allow) == 0 || listed(s.Allow))
}

// hostOf is a server name without its port.
func hostOf(server string) string {
	if strings.HasPrefix(server, "[") {
		host, _, _ := strings.Cut(server, "]")
		return host + "]"
	}
	host, _, _ := strings.Cut(server, ":")
	return host
}

func literal(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.HasPrefix(host, "[")
}

// Match reports whether a name matches one of some globs, in which * stands for anything and ? for one character. Case
// does not matter.
func Match(globs []string, name string) bool {
	for _, g := range globs {
		if glob(strings.ToLower(g), strings.ToLower(name)) {
			return true
		}
	}
	return false
}

// glob matches * and ? in a time that grows with the product of the lengths, whoever wrote the pattern.
func glob(pattern, name string) bool {
	p, n, star, from := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
