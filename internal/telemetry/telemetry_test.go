package telemetry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

type stats struct{ rooms, packets int }

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestPollTakesOneSnapshotPerScrape(t *testing.T) {
	tel := New("1.2.3")
	calls := 0
	Poll(tel, func() stats { calls++; return stats{rooms: 2, packets: 100 * calls} },
		Metric[stats]{"rooms", "Open rooms.", Gauge, func(s stats) float64 { return float64(s.rooms) }, nil},
		Metric[stats]{"packets_total", "Packets.", Counter, func(s stats) float64 { return float64(s.packets) }, map[string]string{"way": "in"}},
		Metric[stats]{"packets_total", "Packets.", Counter, func(s stats) float64 { return 1 }, map[string]string{"way": "out"}})
	code, body := get(t, tel.Handler(), "/metrics")
	for _, want := range []string{
		"# TYPE callserver_rooms gauge\ncallserver_rooms 2\n",
		"# TYPE callserver_packets_total counter\ncallserver_packets_total{way=\"in\"} 100\ncallserver_packets_total{way=\"out\"} 1\n",
		`callserver_info{version="1.2.3"} 1`,
		"go_goroutines",
	} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics: %d, lacks %q", code, want)
		}
	}
	if calls != 1 {
		t.Errorf("%d snapshots for one scrape", calls)
	}
}

func TestHealthz(t *testing.T) {
	tel := New("test")
	var sick error
	tel.Check("media", func() error { return sick })
	if code, body := get(t, tel.Handler(), "/healthz"); code != 200 || body != "OK" {
		t.Errorf("healthy: got %d %q", code, body)
	}
	sick = errors.New("socket closed")
	if code, body := get(t, tel.Handler(), "/healthz"); code != 503 || body != "media: socket closed\n" {
		t.Errorf("sick: got %d %q", code, body)
	}
}

func TestAdminPages(t *testing.T) {
	h := New("test").Handler()
	for path, want := range map[string]int{"/": 200, "/debug/pprof/": 200, "/debug/pprof/goroutine?debug=1": 200, "/nothing": 404} {
		if code, _ := get(t, h, path); code != want {
			t.Errorf("%s: got %d, want %d", path, code, want)
		}
	}
}
