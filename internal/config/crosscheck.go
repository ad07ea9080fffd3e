package config

import (
	"fmt"
	"path/filepath"
)

// crossCheck looks at settings that are right alone and wrong together, and settles defaults that depend on others.
func (l *loader) crossCheck() {
	c := &l.config
	if !l.given["data.file"] && l.name != "" {
		c.Data = Data{File: "callserver.db", Default: true}
	}
	if c.Data.File != "" && !filepath.IsAbs(c.Data.File) {
		c.Data.File = filepath.Join(l.dir, c.Data.File)
	}
	if c.Bot.Recovery != "" && !filepath.IsAbs(c.Bot.Recovery) {
		c.Bot.Recovery = filepath.Join(l.dir, c.Bot.Recovery)
	}
	if !l.given["keys"] && !l.given["keys_file"] {
		c.Keys[DevelopmentKey] = DevelopmentSecret
	}
	if c.Media.UDPPort == Off && c.Media.TCPPort == Off {
		l.problem("media.udp_port", "is off, and media.tcp_port too", "open at least one: calls need a way for media")
	}
	l.tlsCheck()
	l.acmeCheck()
	l.turnCheck()
	if c.Admin.Listen != "" && c.Admin.Listen == c.HTTP.Listen && !anyPort(c.Admin.Listen) {
		l.problem("admin.listen", c.Admin.Listen+" is http.listen already", "give the two listeners different ports, or write admin.listen: off")
	}
	if c.Admin.Listen != "" && !Loopback(c.Admin.Listen) {
		c.Warnings = append(c.Warnings, "admin.listen: "+c.Admin.Listen+" shows metrics and profiles to whoever reaches it - keep it behind a firewall")
	}
	for i, h := range c.Homeservers {
		if h.Unverified {
			c.Warnings = append(c.Warnings, fmt.Sprintf("homeservers[%d]: membership is not verified where no registration can see the room: every user of %s gets into every call whose room id they know - "+
				"set registration, see docs/operator/matrix.md", i, h.ServerName))
		}
		if !h.Unverified && len(h.Registrations) == 0 {
			c.Warnings = append(c.Warnings, fmt.Sprintf("homeservers[%d]: nobody can be verified without a registration, so users of %s are refused unless they come with their own access token (rtc/livekit/) - set registration, see docs/operator/matrix.md", i, h.ServerName))
		}
	}
	if c.Development() {
		l.developmentCheck()
		return
	}
	for name, secret := range c.Keys {
		if len(secret) < 32 {
			c.Warnings = append(c.Warnings, fmt.Sprintf("keys.%s: the secret has %d characters - use 32 or more; callserver token --new-key prints a good one", name, len(secret)))
		}
	}
}

// developmentCheck keeps the key that everybody knows on this machine.
func (l *loader) developmentCheck() {
	const fix = "set keys (callserver token --new-key prints a pair), or keep to a loopback address"
	c := &l.config
	if !Loopback(c.HTTP.Listen) {
		l.problem("http.listen", c.HTTP.Listen+" can be reached by others, and the development key opens it", fix)
	}
	if c.HTTP.PublicURL != nil && !Loopback(c.HTTP.PublicURL.Host) {
		l.problem("http.public_url", c.HTTP.PublicURL.String()+" is for others, and the development key opens it", fix)
	}
	if !l.given["room.auto_create"] {
		c.Room.AutoCreate = true // only this machine can ask
	}
}

func anyPort(hostport string) bool { return len(hostport) > 2 && hostport[len(hostport)-2:] == ":0" }
