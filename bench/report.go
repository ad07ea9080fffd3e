package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// generatorLimit is the share of its cores above which the generator itself may be what is measured.
const generatorLimit = 0.8

// A Report is the result of a run. Times in JSON are milliseconds.
type Report struct {
	Load     Load    `json:"load"`
	Duration float64 `json:"duration_s"` // of the measurement
	// Void says why the figures must not be used, "" if they may.
	Void string `json:"void,omitempty"`

	Joins         Joins     `json:"joins"`
	Comebacks     Comebacks `json:"comebacks"`
	FirstPacket   Times     `json:"first_packet"`    // from connected and published to the first packet of each track
	FirstKeyFrame Times     `json:"first_key_frame"` // the same to the first whole key frame

	Latency   Times     `json:"latency"` // one way, sender to the receiver's kernel
	Packets   Packets   `json:"packets"`
	Server    *Server   `json:"server,omitempty"`
	Generator Generator `json:"generator"`
}

// Joins are the participants' way in: websocket dialled to ICE and DTLS connected.
type Joins struct {
	Asked   int      `json:"asked"`
	Joined  int      `json:"joined"`
	Refused int      `json:"refused"`          // by a server that is full (503)
	Errors  []string `json:"errors,omitempty"` // the first few
	Times
}

// Times summarise durations.
type Times struct {
	Count uint64 `json:"count"`
	P50   Millis `json:"p50_ms"`
	P95   Millis `json:"p95_ms"`
	P99   Millis `json:"p99_ms"`
	Max   Millis `json:"max_ms"`
}

// Millis is a duration that JSON shows in milliseconds.
type Millis time.Duration

// MarshalJSON implements json.Marshaler.
func (m Millis) MarshalJSON() ([]byte, error) { return json.Marshal(m.value()) }

// UnmarshalJSON implements json.Unmarshaler.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var v float64
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*m = Millis(v * float64(time.Millisecond))
	return nil
}

func (m Millis) value() float64 { return float64(m) / float64(time.Millisecond) }

func summarise(h *histogram) Times {
	return Times{h.n, Millis(h.quantile(.5)), Millis(h.quantile(.95)), Millis(h.quantile(.99)), Millis(h.max)}
}

// Packets are the media of the measurement.
type Packets struct {
	Sent       uint64  `json:"sent"`      // by publishers, all layers
	Forwarded  uint64  `json:"forwarded"` // received, without repetitions
	PerSecond  float64 `json:"forwarded_per_second"`
	Lost       uint64  `json:"lost"`
	Loss       float64 `json:"loss"` // of those that should have come
	Reordered  uint64  `json:"reordered"`
	Duplicates uint64  `json:"duplicates"`
	Starved    int     `json:"starved"`   // tracks of which a participant received nothing
	TopLayer   float64 `json:"top_layer"` // share of the video packets
	Bad        uint64  `json:"bad"`       // that did not authenticate or were not ours, since the start
	Nacked     uint64  `json:"nacked"`    // asked of publishers, since the start
	Asked      uint64  `json:"asked"`     // asked of the server, since the start
	KeyFrames  float64 `json:"key_frames_per_layer_second"`

	video, top uint64
	keys       uint64
	layers     int
}

// Server is what the server's process used during the measurement.
type Server struct {
	CPU          float64 `json:"cpu_s"`
	Cores        float64 `json:"cores"`                    // CPU time by time
	PerCPUSecond float64 `json:"forwarded_per_cpu_second"` // packets
	RSS          int64   `json:"rss_bytes"`                // at the end
	RSSEach      int64   `json:"rss_bytes_per_participant"`
	Switches     int64   `json:"context_switches"`
}

// Generator says whether the generator kept up.
type Generator struct {
	Share     float64 `json:"cpu_share"` // of its cores
	Lateness  Times   `json:"lateness"`  // of frames behind their schedule, since the start
	Unsent    uint64  `json:"unsent"`    // packets that the kernel did not take
	Overflows uint64  `json:"overflows"` // datagrams lost to full receive buffers on this machine, anybody's
}

// newReport is the report on what a generator of so many loops, one a core, and the server used.
func newReport(o Options, loops int, before, after processes) *Report {
	r := &Report{Load: o.Load, Duration: o.Duration.Seconds()}
	took := (after.at - before.at).Seconds()
	r.Generator.Share = (after.own.CPU - before.own.CPU).Seconds() / took / float64(loops)
	r.Generator.Overflows = after.overflows - before.overflows
	if o.PID != 0 {
		cpu := (after.server.CPU - before.server.CPU).Seconds()
		r.Server = &Server{CPU: cpu, Cores: cpu / took, RSS: after.server.RSS, Switches: after.server.Switches - before.server.Switches}
	}
	return r
}

func (r *Report) addTrack(t *track) {
	for _, l := range t.layers {
		r.Packets.Sent += uint64(l.measured)
		if t.video && l.measured > 0 {
			r.Packets.layers++
			r.Packets.keys += uint64(l.keyFrames)
		}
	}
}

func (r *Report) addLink(l *link) {
	r.Packets.Bad += l.bad + l.foreign
	r.Packets.Nacked += l.nacked
	r.Packets.Asked += l.asked
}

func (r *Report) addFlow(f *flow) {
	p := &r.Packets
	p.Forwarded += uint64(f.received)
	p.Lost += uint64(f.missing())
	p.Reordered += uint64(f.reordered)
	p.Duplicates += uint64(f.duplicates)
	if !f.begun {
		p.Starved++
	}
	if f.track.video {
		p.video += uint64(f.received)
		p.top += uint64(f.layers[f.track.top()])
	}
}

// conclude computes the ratios.
func (r *Report) conclude() {
	p := &r.Packets
	r.Joins.Joined = int(r.Joins.Count)
	p.PerSecond = float64(p.Forwarded) / r.Duration
	p.Loss = ratio(float64(p.Lost), float64(p.Lost+p.Forwarded))
	p.TopLayer = ratio(float64(p.top), float64(p.video))
	p.KeyFrames = ratio(float64(p.keys), float64(p.layers)*r.Duration)
	if s := r.Server; s != nil {
		s.PerCPUSecond = ratio(float64(p.Forwarded), s.CPU)
		s.RSSEach = int64(ratio(float64(s.RSS), float64(r.Joins.Joined)))
	}
	switch g := r.Generator; {
	case g.Share > generatorLimit:
		r.Void = fmt.Sprintf("the generator used %.0f %% of its cores, more than %.0f %%: it may be what was measured", 100*g.Share, 100*generatorLimit)
	case g.Unsent > 0:
		r.Void = fmt.Sprintf("the kernel did not take %d packets of the generator", g.Unsent)
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	var err error
	line := func(name, format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, "%-18s"+format+"\n", append([]any{name}, args...)...)
		}
	}
	times := func(name string, t Times) {
		line(name, "p50 %.1f  p95 %.1f  p99 %.1f  max %.1f ms  (%d)", t.P50.value(), t.P95.value(), t.P99.value(), t.Max.value(), t.Count)
	}
	p := r.Packets
	line("load", "%d rooms of %d publishers and %d subscribers, audio %t, video %t, %.0f s", r.Load.Rooms, r.Load.Publishers, r.Load.Subscribers, r.Load.Audio, r.Load.Video, r.Duration)
	line("joined", "%d of %d, %d refused because the server is full", r.Joins.Joined, r.Joins.Asked, r.Joins.Refused)
	for _, e := range r.Joins.Errors {
		line("", "%s", e)
	}
	times("join", r.Joins.Times)
	if c := r.Comebacks; c.Lost > 0 {
		line("came back", "%d of %d who lost the server", c.Count, c.Lost)
		times("", c.Times)
	}
	times("first packet", r.FirstPacket)
	times("first key frame", r.FirstKeyFrame)
	times("one-way latency", r.Latency)
	line("forwarded", "%.0f packets/s (%d from %d sent)", p.PerSecond, p.Forwarded, p.Sent)
	line("lost", "%d (%.3f %%), reordered %d, duplicates %d, starved tracks %d, bad %d", p.Lost, 100*p.Loss, p.Reordered, p.Duplicates, p.Starved, p.Bad)
	line("retransmission", "asked of the server %d, of publishers %d", p.Asked, p.Nacked)
	if r.Load.Video {
		line("video", "%.1f %% in the top layer, %.2f key frames a second and layer", 100*p.TopLayer, p.KeyFrames)
	}
	if s := r.Server; s != nil {
		line("server", "%.0f packets per CPU-second, %.2f cores, %.1f MiB (%.2f a participant), %d context switches",
			s.PerCPUSecond, s.Cores, mebibytes(s.RSS), mebibytes(s.RSSEach), s.Switches)
	}
	g := r.Generator
	line("generator", "%.0f %% of its cores, frames late p99 %.2f ms max %.2f ms, receive overflows %d", 100*g.Share, g.Lateness.P99.value(), g.Lateness.Max.value(), g.Overflows)
	if r.Void != "" {
		line("VOID", "%s", r.Void)
	}
	return err
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
