package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"callserver/internal/config"
	"callserver/internal/telemetry"
	"callserver/sfu"
	"callserver/sfu/egress"
	"callserver/sfu/load"
	"callserver/signalling"
	"callserver/signalling/token"
)

// newTestOverload returns one without participants, and what it says.
func newTestOverload(limits config.Overload, sent func() egress.Stats) (o *overload, said *strings.Builder) {
	said = &strings.Builder{}
	rooms := sfu.New(sfu.Options{AutoCreate: true})
	c := &config.Config{Limits: config.Limits{Overload: limits}}
	return newOverload(c, rooms, signalling.New(signalling.Options{Rooms: rooms}), sent, telemetry.Logger(said, telemetry.LogOptions{})), said
}

// What the load is judged to be reaches the rooms, the door, the log and the metrics.
func TestOverload(t *testing.T) {
	o, said := newTestOverload(config.Overload{CPU: 80}, func() egress.Stats { return egress.Stats{} })
	sessions, now := o.sessions, time.Now()
	work := func(cpu float64) {
		said.Reset()
		for range 20 {
			now = now.Add(time.Second)
			o.judge(load.Sample{CPU: cpu}, now)
		}
	}
	newcomer := token.Join("room", "alice")

	work(0.75)
	if err := sessions.Check(newcomer); err != nil || o.stats().Level != load.Near || !strings.Contains(said.String(), "setting=limits.load.cpu") {
		t.Errorf("near the limit: %v, %+v, and said %q", err, o.stats(), said)
	}
	work(0.95)
	var refusal *signalling.Error
	if err := sessions.Check(newcomer); !errors.As(err, &refusal) || refusal.Code != signalling.Overloaded {
		t.Errorf("at the limit: %v", err)
	}
	_, _ = sessions.Join(t.Context(), newcomer, signalling.PeerOptions{})
	if s := o.stats(); s.Level != load.Full || s.Refused != 1 || s.Ratio < 1.1 || s.CPU != 0.95 {
		t.Errorf("at the limit: %+v", s)
	}
	if n := strings.Count(said.String(), "newcomers are refused, running calls go on"); n != 1 || !strings.Contains(said.String(), `setting=limits.load.cpu limit=80% is=95%`) {
		t.Errorf("said %d times that newcomers are refused: %s", n, said)
	}
	work(0.1)
	if err := sessions.Check(newcomer); err != nil || o.stats().Level != load.Calm || !strings.Contains(said.String(), "well below") {
		t.Errorf("calm again: %v, %+v, and said %q", err, o.stats(), said)
	}
}

// Packets are counted, and their setting is named.
func TestOverloadByPackets(t *testing.T) {
	sent := egress.Stats{Packets: 100}
	o, said := newTestOverload(config.Overload{Packets: 1_000}, func() egress.Stats { return sent })
	now := time.Now()
	for range 10 {
		before := o.usage(now)
		now, sent.Packets = now.Add(2*time.Second), sent.Packets+2_200
		o.judge(o.usage(now).since(before), now)
	}
	if s := o.stats(); s.Level != load.Full || s.Packets < 1_099 || s.Packets > 1_101 {
		t.Errorf("1,100 packets a second of 1,000: %+v", s)
	}
	if !strings.Contains(said.String(), "setting=limits.load.packets limit=1000/s is=1100/s") {
		t.Errorf("said %q", said)
	}
}

// What it took to send to all is the mean of the packets sent meanwhile, and the log names what helps.
func TestOverloadByFanOut(t *testing.T) {
	sent := egress.Stats{Packets: 100, FanOut: 1_000_000}
	o, said := newTestOverload(config.Overload{CPU: 80}, func() egress.Stats { return sent })
	now := time.Now()
	for range 10 {
		before := o.usage(now)
		now = now.Add(time.Second)
		sent.Packets += 2_000
		sent.FanOut += 2_000 * 12_000
		s := o.usage(now).since(before)
		s.CPU = 0.4
		o.judge(s, now)
	}
	if s := o.stats(); s.Level != load.Full || s.FanOut != 12*time.Millisecond || s.Worst != load.FanOut {
		t.Errorf("12 ms for each packet: %+v", s)
	}
	if !strings.Contains(said.String(), "give this server more cores") || !strings.Contains(said.String(), "fan_out=12ms by=fan-out") {
		t.Errorf("said %q", said)
	}
}

// The time that the process used rises while it works.
func TestProcessTime(t *testing.T) {
	before := processTime()
	for begin := time.Now(); processTime() <= before; {
		if time.Since(begin) > time.Minute {
			t.Fatalf("a minute of work, and still %v", before)
		}
	}
}
