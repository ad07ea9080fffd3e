package edge

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
)

// RequestIDHeader carries the identifier of a request to its handler and back to the client. What a client sends under
// this name is replaced.
const RequestIDHeader = "X-Request-Id"

// tlsState is the key of a request's TLS state, where net/http does not see it.
type tlsState struct{}

// withTLS keeps the TLS state of a connection whose first byte was read.
func withTLS(ctx context.Context, c net.Conn) context.Context {
	p, ok := c.(*peeked)
	if !ok {
		return ctx
	}
	t, ok := p.Conn.(*tls.Conn)
	if !ok {
		return ctx
	}
	state := t.ConnectionState()
	return context.WithValue(ctx, tlsState{}, &state)
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if state, ok := r.Context().Value(tlsState{}).(*tls.ConnectionState); ok {
		r.TLS = state
	}
	id := rand.Text()[:12]
	r.Header.Set(RequestIDHeader, id)
	w.Header().Set(RequestIDHeader, id)
	if why := g.refuse(r); why != "" {
		g.refused.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "*") // else browsers hide the reason
		http.Error(w, why, http.StatusForbidden)
		return
	}
	collapse(r.URL)
	g.requests.Add(1)
	defer g.recover(w, r, id)
	g.next.ServeHTTP(w, r)
}

// recover answers a panic in a handler: client bytes enter here, and one client must not end the server.
func (g *guard) recover(w http.ResponseWriter, r *http.Request, id string) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // the sentinel itself is what handlers panic with
		panic(p)
	}
	g.panics.Add(1)
	g.log.Error("handler panicked", "request", id, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	w.Header().Set("Access-Control-Allow-Origin", "*")
	http.Error(w, "Something went wrong on the server (request "+id+")", http.StatusInternalServerError)
}

// refuse says why a request may not be served with the development key, which everybody knows: it came from another
// machine, through a proxy, or from a page that reached this machine by a foreign name (DNS rebinding).
func (g *guard) refuse(r *http.Request) string {
	if !g.development {
		return ""
	}
	const fix = "the development key is in use; set keys in the configuration to serve others"
	for name := range r.Header {
		if name == "Forwarded" || strings.HasPrefix(name, "X-Forwarded-") {
			return fmt.Sprintf("refused a request that came through a proxy (%s): %s", name, fix)
		}
	}
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !from.Addr().Unmap().IsLoopback() {
		return "refused a request from another machine: " + fix
	}
	if !localName(r.Host) {
		return fmt.Sprintf("refused a request for %q: %s", r.Host, fix)
	}
	return ""
}

// localName tells whether a Host header names this machine.
func localName(hostport string) bool {
	host := (&url.URL{Host: hostport}).Hostname()
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// collapse takes doubled slashes out of a path. Clients whose base URL ends in a slash produce them, and the redirect
// that net/http would answer breaks WebSockets and preflights.
func collapse(u *url.URL) {
	for strings.Contains(u.Path, "//") {
		u.Path = strings.ReplaceAll(u.Path, "//", "/")
	}
	for strings.Contains(u.RawPath, "//") {
		u.RawPath = strings.ReplaceAll(u.RawPath, "//", "/")
	}
}
