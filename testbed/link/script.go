package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Direction says which lane of a link a step is about.
type Direction uint8

// The directions, seen from the client.
const (
	Both Direction = iota
	Up             // client to server
	Down           // server to client
)

var directionNames = map[string]Direction{"": Both, "both": Both, "up": Up, "down": Down}

// UnmarshalText reads "up", "down" or "both".
func (d *Direction) UnmarshalText(text []byte) error {
	found, ok := directionNames[string(text)]
	if !ok {
		return fmt.Errorf("direction %q: want up, down or both", text)
	}
	*d = found
	return nil
}

// Step replaces the conditions of one or both directions at a moment of a script.
type Step struct {
	At        time.Duration // since the script began
	Direction Direction
	Conditions
}

// Script is what happens to a link over time, in order of Step.At.
type Script struct {
	Seed  uint64 // of all chance
	Steps []Step
}

// stepText is a step as it is written: durations and rates in units that a person reads.
type stepText struct {
	At        float64   `json:"at_s"`
	Direction Direction `json:"direction"`
	Loss      float64   `json:"loss"`
	Only      Protocol  `json:"only"`
	Delay     float64   `json:"delay_ms"`
	Jitter    float64   `json:"jitter_ms"`
	Reorder   bool      `json:"reorder"`
	Rate      float64   `json:"rate_kbps"`
	QueueLen  int       `json:"queue"`
}

const (
	maxSteps  = 1000
	maxFigure = 1e6 // seconds, milliseconds, kbit/s: nothing a link is asked for comes near, and no duration overflows below it
)

// ParseScript reads a script written as JSON, for example a cut of UDP from second 2 to 7:
//
//	{"seed": 1, "steps": [{"at_s": 2, "loss": 1, "only": "udp"}, {"at_s": 7}]}
//
// Every step says all its conditions anew; what it leaves out is perfect. Unknown keys are errors.
func ParseScript(text []byte) (Script, error) {
	var written struct {
		Seed  uint64     `json:"seed"`
		Steps []stepText `json:"steps"`
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&written); err != nil {
		return Script{}, fmt.Errorf("link script: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Script{}, errors.New("link script: something follows its end")
	}
	if len(written.Steps) > maxSteps {
		return Script{}, fmt.Errorf("link script: %d steps, more than %d", len(written.Steps), maxSteps)
	}
	script := Script{Seed: written.Seed, Steps: make([]Step, 0, len(written.Steps))}
	for i, s := range written.Steps {
		if err := s.check(); err != nil {
			return Script{}, fmt.Errorf("link script: step %d: %w", i+1, err)
		}
		script.Steps = append(script.Steps, s.step())
	}
	slices.SortStableFunc(script.Steps, func(a, b Step) int { return int(a.At - b.At) })
	return script, nil
}

func (s stepText) check() error {
	for _, f := range []struct {
		key   string
		value float64
		most  float64
	}{
		{"at_s", s.At, maxFigure}, {"loss", s.Loss, 1}, {"delay_ms", s.Delay, maxFigure}, {"jitter_ms", s.Jitter, maxFigure},
		{"rate_kbps", s.Rate, maxFigure}, {"queue", float64(s.QueueLen), maxFigure},
	} {
		if f.value < 0 || f.value > f.most {
			return fmt.Errorf("%s is %g, want 0 to %g", f.key, f.value, f.most)
		}
	}
	return nil
}

func (s stepText) step() Step {
	return Step{
		At: time.Duration(s.At * float64(time.Second)), Direction: s.Direction,
		Conditions: Conditions{
			Loss: s.Loss, Only: s.Only, Reorder: s.Reorder, QueueLen: s.QueueLen, Rate: int64(s.Rate * 1000),
			Delay: time.Duration(s.Delay * float64(time.Millisecond)), Jitter: time.Duration(s.Jitter * float64(time.Millisecond)),
		},
	}
}
