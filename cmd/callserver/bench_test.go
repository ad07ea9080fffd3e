package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"callserver/bench"
)

// TestBench runs a small load on a server in this process: everybody joins, hears and sees everybody, and nothing of it
// stays.
func TestBench(t *testing.T) {
	s := serve(t, nil)
	var out, lines bytes.Buffer
	code := run(t.Context(), []string{"bench", "--url", s.base + sfuPath, "--publishers", "2", "--subscribers", "1", "--join-rate", "50",
		"--warmup", "1500ms", "--duration", "1s", "--json"}, nil, &out, &lines)
	var r bench.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || code != exitOK && r.Void == "" {
		t.Fatalf("exit %d, %v:\n%s%s", code, err, &out, &lines)
	}
	// Each hears and sees each publisher but itself: 4 flows of 50 packets/s and 4 of 210.
	p := r.Packets
	if r.Joins.Joined != 3 || p.Starved != 0 || p.Bad != 0 || p.Duplicates != 0 || p.Loss > .01 || p.Forwarded < 500 {
		t.Errorf("joins %+v\npackets %+v", r.Joins, p)
	}
	if r.FirstKeyFrame.Count != 4 || r.FirstPacket.Count != 8 || r.Latency.Count < p.Forwarded {
		t.Errorf("first key frames %+v, packets %+v, latency %+v", r.FirstKeyFrame, r.FirstPacket, r.Latency)
	}
	if !strings.Contains(lines.String(), "3 of 3 joined") {
		t.Errorf("progress: %s", &lines)
	}
	if code := run(t.Context(), []string{"bench", "--url", "wss://192.0.2.1"}, nil, &out, &lines); code != exitFailure || !strings.Contains(lines.String(), "--i-own-this-server") {
		t.Errorf("a server of others: exit %d, %s", code, &lines)
	}
}
