package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func do(p *Page, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func TestPageIsComplete(t *testing.T) {
	p := New(Options{})
	page := do(p, http.MethodGet, "/", "")
	if page.Code != 200 || !strings.HasPrefix(page.Header().Get("Content-Type"), "text/html") {
		t.Fatalf("/: %d %v", page.Code, page.Header())
	}
	refs := regexp.MustCompile(`(?:src|href)="\.(/[^"]+)"`).FindAllStringSubmatch(page.Body.String(), -1)
	if len(refs) != 2 {
		t.Errorf("the page refers to %d files, want script and style:\n%s", len(refs), page.Body)
	}
	for _, ref := range refs {
		if w := do(p, http.MethodGet, ref[1], ""); w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %d bytes", ref[1], w.Code, w.Body.Len())
		}
	}
}

func TestFiles(t *testing.T) {
	p := New(Options{})
	etag := do(p, http.MethodGet, "/", "").Header().Get("ETag")
	for _, tc := range []struct {
		name, method, path string
		header             []string
		want               int
	}{
		{"head", http.MethodHead, "/", nil, 200},
		{"unchanged", http.MethodGet, "/", []string{"If-None-Match", etag}, 304},
		{"post", http.MethodPost, "/", nil, 405},
		{"unknown", http.MethodGet, "/assets/nothing.js", nil, 404},
		{"directory", http.MethodGet, "/assets/", nil, 404},
	} {
		w := do(p, tc.method, tc.path, "", tc.header...)
		if w.Code != tc.want || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: got %d %v, want %d with CORS", tc.name, w.Code, w.Header(), tc.want)
		}
	}
}

func TestSettings(t *testing.T) {
	mint := func(_, _, _ string) (string, error) { return "", nil }
	for want, p := range map[string]*Page{`{"development":false}`: New(Options{}), `{"development":true}`: New(Options{Token: mint})} {
		if got := strings.TrimSpace(do(p, http.MethodGet, "/web/settings.json", "").Body.String()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestToken(t *testing.T) {
	p := New(Options{Token: func(room, identity, name string) (string, error) {
		if room == "bad" {
			return "", errors.New("refused")
		}
		return room + "/" + identity + "/" + name, nil
	}})
	const body = `{"room":"lobby","identity":"web-1","name":"Al"}`
	jsonType := []string{"Content-Type", "application/json; charset=utf-8"}
	for _, tc := range []struct {
		name, method, body string
		header             []string
		page               *Page
		want               int
	}{
		{"page", http.MethodPost, body, jsonType, p, 200},
		{"page, by its browser's word", http.MethodPost, body, append([]string{"Sec-Fetch-Site", "same-origin"}, jsonType...), p, 200},
		{"another site", http.MethodPost, body, append([]string{"Sec-Fetch-Site", "cross-site"}, jsonType...), p, 403},
		{"another port", http.MethodPost, body, append([]string{"Sec-Fetch-Site", "same-site"}, jsonType...), p, 403},
		{"a form", http.MethodPost, body, []string{"Content-Type", "text/plain"}, p, 403},
		{"get", http.MethodGet, "", nil, p, 405},
		{"no JSON", http.MethodPost, "{", jsonType, p, 400},
		{"no room", http.MethodPost, `{"identity":"x"}`, jsonType, p, 400},
		{"long", http.MethodPost, `{"room":"r","identity":"x","name":"` + strings.Repeat("n", 300) + `"}`, jsonType, p, 400},
		{"huge", http.MethodPost, `{"room":"` + strings.Repeat("n", 9000) + `"}`, jsonType, p, 400},
		{"refused", http.MethodPost, `{"room":"bad","identity":"x"}`, jsonType, p, 400},
		{"not in development", http.MethodPost, body, jsonType, New(Options{}), 404},
	} {
		w := do(tc.page, tc.method, "/web/token", tc.body, tc.header...)
		if w.Code != tc.want {
			t.Errorf("%s: got %d %q, want %d", tc.name, w.Code, w.Body, tc.want)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: other origins may read the answer", tc.name)
		}
		if w.Code != 200 {
			continue
		}
		var got struct{ Token string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Token != "lobby/web-1/Al" {
			t.Errorf("%s: got %q, %v", tc.name, got.Token, err)
		}
	}
}
