package main

import (
	"callserver/edge"
	"callserver/internal/telemetry"
)

// observe gives telemetry the snapshots of every part.
func (s *server) observe() {
	type metric = telemetry.Metric[edge.Stats]
	telemetry.Poll(s.telemetry, s.clients.Stats,
		metric{Name: "http_requests_total", Help: "HTTP requests handed to a handler.", Kind: telemetry.Counter, Of: func(v edge.Stats) float64 { return float64(v.Requests) }},
		metric{Name: "http_refused_total", Help: "HTTP requests refused because the development key is in use.", Kind: telemetry.Counter, Of: func(v edge.Stats) float64 { return float64(v.Refused) }},
		metric{Name: "http_panics_total", Help: "HTTP handlers that panicked.", Kind: telemetry.Counter, Of: func(v edge.Stats) float64 { return float64(v.Panics) }},
	)
}
