package matrixrtc

import (
	"net"
	"net/http"
	"strings"

	mautrix "maunium.net/go/mautrix/federation"
)

// A transport is one way into calls, as clients of MSC4143 discover it.
type transport struct {
	Type       string `json:"type"`
	ServiceURL string `json:"livekit_service_url"`
	URL        string `json:"url,omitempty"` // of the media server; not in the well-known document
}

// serveTransports answers GET /rtc/transports (MSC4143). What it says is no secret, so the access token is not
// verified: it is demanded because clients treat the endpoint as an authenticated one.
func (a *Authoriser) serveTransports(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, matrixCORS, http.MethodGet) {
		return
	}
	if r.Header.Get("Authorization") == "" {
		refuse(w, &refusal{status: http.StatusUnauthorized, code: "M_MISSING_TOKEN", text: "Missing access token"})
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"rtc_transports": []transport{{Type: "livekit", ServiceURL: a.serviceURL(r), URL: a.sfuURL(r)}},
	})
}

// serveWellKnown answers GET /.well-known/matrix/client, for the homeserver whose domain was asked or the first one.
func (a *Authoriser) serveWellKnown(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, matrixCORS, http.MethodGet, http.MethodHead) {
		return
	}
	document := map[string]any{
		"org.matrix.msc4143.rtc_foci": []transport{{Type: "livekit", ServiceURL: a.serviceURL(r)}},
	}
	if base := a.clientAPI(r.Host); base != "" {
		document["m.homeserver"] = map[string]string{"base_url": base}
	}
	answer(w, http.StatusOK, document)
}

// clientAPI returns the base URL of the homeserver whose domain is that of the host asked, or of the first one.
func (a *Authoriser) clientAPI(asked string) string {
	if host, _, err := net.SplitHostPort(asked); err == nil {
		asked = host
	}
	for _, name := range a.names {
		host, _, _ := mautrix.ParseServerName(name)
		if strings.EqualFold(host, strings.Trim(asked, "[]")) {
			return a.homeservers[name].ClientAPI
		}
	}
	if len(a.names) == 0 {
		return ""
	}
	return a.homeservers[a.names[0]].ClientAPI
}

func (a *Authoriser) serviceURL(r *http.Request) string {
	if a.options.ServiceURL != "" {
		return a.options.ServiceURL
	}
	scheme := "http://"
	if secure(r) {
		scheme = "https://"
	}
	return scheme + r.Host + a.options.Prefix
}

func (a *Authoriser) sfuURL(r *http.Request) string {
	if a.options.SFUURL != "" {
		return a.options.SFUURL
	}
	scheme := "ws://"
	if secure(r) {
		scheme = "wss://"
	}
	return scheme + r.Host + a.options.SFUPath
}

// secure reports whether the client came by TLS. A lie in the header only misleads the liar.
func secure(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}
