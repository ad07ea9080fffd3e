package link

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseScript(t *testing.T) {
	got, err := ParseScript([]byte(`{"seed": 7, "steps": [
		{"at_s": 7},
		{"at_s": 1.5, "direction": "up", "loss": 0.1, "only": "udp", "delay_ms": 40, "jitter_ms": 0.5, "reorder": true, "rate_kbps": 500, "queue": 20}
	]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Script{Seed: 7, Steps: []Step{
		{At: 1500 * time.Millisecond, Direction: Up, Conditions: Conditions{
			Loss: 0.1, Only: UDP, Delay: 40 * time.Millisecond, Jitter: 500 * time.Microsecond, Reorder: true, Rate: 500_000, QueueLen: 20,
		}},
		{At: 7 * time.Second},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseScriptErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", ``, "EOF"},
		{"two", `{} {}`, "follows its end"},
		{"unknown key", `{"steps": [{"los": 1}]}`, `"los"`},
		{"probability", `{"steps": [{}, {"loss": 1.5}]}`, "step 2: loss is 1.5, want 0 to 1"},
		{"negative", `{"steps": [{"delay_ms": -1}]}`, "delay_ms is -1"},
		{"too much", `{"steps": [{"rate_kbps": 1e9}]}`, "rate_kbps is 1e+09"},
		{"protocol", `{"steps": [{"only": "icmp"}]}`, `protocol "icmp": want udp, tcp or any`},
		{"direction", `{"steps": [{"direction": "left"}]}`, `direction "left": want up, down or both`},
		{"too many", `{"steps": [` + strings.Repeat("{},", maxSteps) + `{}]}`, "1001 steps"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseScript([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func FuzzParseScript(f *testing.F) {
	f.Add([]byte(`{"seed": 1, "steps": [{"at_s": 2, "loss": 1, "only": "udp"}, {"at_s": 7}]}`))
	f.Add([]byte(`{"steps": [{"rate_kbps": 0.001, "queue": 1, "direction": "down"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		script, err := ParseScript(text)
		if err != nil {
			return
		}
		l := NewLane(script.Seed)
		for _, s := range script.Steps {
			l.Set(s.Conditions)
			l.Push(udp(60, 0), start.Add(s.At))
			if due, ok := l.Next(); ok && due.Before(start) {
				t.Fatalf("a packet is due at %v, before it was sent", due)
			}
		}
	})
}
