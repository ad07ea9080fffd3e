package edge

import (
	"net/http"
	"strings"
)

// A Mount puts a handler, which sees its own paths only, at the root of the site and below prefixes.
type Mount struct {
	// Handler gets requests with the prefix taken off: /livekit/sfu/rtc arrives as /rtc.
	Handler http.Handler
	// Root lists what the handler owns at the root of the site: a path, or a subtree if it ends in a slash.
	Root []string
	// Prefixes hand whole subtrees to the handler: /livekit/sfu.
	Prefixes []string
}

// Mux joins the mounts to one handler. What nobody owns is 404 with CORS headers, so that a browser sees the status.
// Overlapping mounts are a programmer's error and panic.
func Mux(mounts ...Mount) http.Handler {
	mux := http.NewServeMux()
	for _, m := range mounts {
		for _, path := range m.Root {
			if path == "/" {
				path = "/{$}" // the page alone; the subtree is everybody's
			}
			mux.Handle(path, m.Handler)
		}
		for _, prefix := range m.Prefixes {
			prefix = strings.TrimRight(prefix, "/")
			below := strip(prefix, m.Handler)
			mux.Handle(prefix, below)
			mux.Handle(prefix+"/", below)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		http.Error(w, "not found", http.StatusNotFound)
	})
	return mux
}

// strip takes the prefix off; what is left is at least "/".
func strip(prefix string, next http.Handler) http.Handler {
	below := http.StripPrefix(prefix, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == prefix {
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = prefix+"/", ""
		}
		below.ServeHTTP(w, r)
	})
}

// OK answers 200 with a short text to GET and HEAD from any origin: liveness probes, and what LiveKit clients ask
// before they connect.
func OK(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("OK")) // the client may be gone
}
