// Package web is the page in the browser. It owns the embedded files of the call page (sources in src, built by Vite)
// and the two answers that the page asks for. It never talks to rooms: the page is a LiveKit client like any other.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed dist
var dist embed.FS

// Limits of what the page may ask a development token for, in bytes.
const (
	maxBody = 4 << 10
	maxText = 256
)

// Options of the page.
type Options struct {
	// Token mints a token with which identity joins room under name; nil where the server hands out none. Give it for
	// development only: whoever opens the page may enter every room.
	Token func(room, identity, name string) (string, error)
}

// Page serves the call page. Safe for concurrent use.
type Page struct {
	token func(room, identity, name string) (string, error)
	files map[string]file
}

type file struct {
	content   []byte
	mediaType string
	etag      string
}

// Root lists what the page owns at the root of a site.
func Root() []string { return []string{"/", "/assets/", "/web/"} }

// New returns the page.
func New(o Options) *Page {
	p := &Page{token: o.Token, files: map[string]file{}}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := dist.ReadFile(name)
		sum := sha256.Sum256(content)
		p.files[strings.TrimPrefix(name, "dist")] = file{
			content:   content,
			mediaType: mime.TypeByExtension(path.Ext(name)),
			etag:      `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		}
		return err
	})
	if err != nil {
		panic(err) // the embedded tree is part of the program
	}
	p.files["/"] = p.files["/index.html"]
	return p
}

// ServeHTTP answers the page's paths.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/web/settings.json":
		w.Header().Set("Cache-Control", "no-store")
		answer(w, map[string]bool{"development": p.token != nil})
	case "/web/token":
		p.serveToken(w, r)
	default:
		p.serveFile(w, r)
	}
}

func (p *Page) serveFile(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*") // LiveKit clients of any origin ask for / before they connect
	f, ok := p.files[r.URL.Path]
	switch {
	case !ok:
		http.Error(w, "not found", http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Type", f.mediaType)
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache") // names are stable: ask, and get 304
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

// serveToken mints a development token for the page itself. It sends no CORS headers and demands a JSON body, which a
// page of another origin cannot send without a preflight that nobody answers.
func (p *Page) serveToken(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	site := r.Header.Get("Sec-Fetch-Site")
	switch {
	case p.token == nil:
		http.Error(w, "this server hands out no tokens", http.StatusNotFound)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	case kind != "application/json" || site != "" && site != "same-origin":
		http.Error(w, "only the page of this server gets tokens here", http.StatusForbidden)
		return
	}
	var ask struct{ Room, Identity, Name string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&ask); err != nil {
		http.Error(w, "the request is not JSON of room, identity and name", http.StatusBadRequest)
		return
	}
	if ask.Room == "" || ask.Identity == "" || max(len(ask.Room), len(ask.Identity), len(ask.Name)) > maxText {
		http.Error(w, "give a room and an identity, and nothing longer than 256 characters", http.StatusBadRequest)
		return
	}
	raw, err := p.token(ask.Room, ask.Identity, ask.Name)
	if err != nil {
		http.Error(w, "no token can be made for this room and identity", http.StatusBadRequest)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	answer(w, map[string]string{"token": raw})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
