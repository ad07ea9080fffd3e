package sfu

import (
	"fmt"
	"testing"
	"time"
)

// fill makes a room of n participants of whom some publish a camera and a microphone, everybody receiving everything.
func fill(b *testing.B, n, publishers int) *stage {
	st := newStage(b, Options{})
	for i := range n {
		c := st.join(Identity(fmt.Sprint("p", i)))
		if i < publishers {
			c.camera()
			c.microphone()
		}
	}
	drainAll(st)
	return st
}

func drainAll(st *stage) {
	rm := st.rooms.find("room")
	for _, p := range rm.members {
		p.Events()
	}
}

// BenchmarkJoin is a join, the reading of its events by all and the leave, in a room of 300.
func BenchmarkJoin(b *testing.B) {
	for _, publishers := range []int{5, 50, 300} {
		b.Run(fmt.Sprint("publishers=", publishers), func(b *testing.B) {
			st := fill(b, 300, publishers)
			b.ReportAllocs()
			for b.Loop() {
				c := st.join("late")
				c.Snapshot()
				drainAll(st)
				c.Leave(ClientInitiated, st.now)
				drainAll(st)
			}
		})
	}
}

// BenchmarkPublish is a camera coming and going in a room of 300.
func BenchmarkPublish(b *testing.B) {
	st := fill(b, 300, 5)
	c := &client{st.rooms.Participant("room", "p299"), st}
	b.ReportAllocs()
	for b.Loop() {
		sid := c.camera()
		drainAll(st)
		c.Unpublish(sid, st.now)
		drainAll(st)
	}
}

// BenchmarkTick is one tick of 50 ms of a room of 300 in which all publish and receive everything, bound.
func BenchmarkTick(b *testing.B) {
	st := fill(b, 300, 300)
	rm := st.rooms.find("room")
	for _, p := range rm.members {
		for sid := range p.subscriptions {
			if _, err := p.Bind(sid, silentWriter{}, true, st.now); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		st.now = st.now.Add(50 * time.Millisecond)
		st.rooms.Tick(st.now)
		drainAll(st)
	}
}

// BenchmarkSendData is one message to a room of 300.
func BenchmarkSendData(b *testing.B) {
	st := fill(b, 300, 0)
	for _, p := range st.rooms.find("room").members {
		p.SetDataWriter(discard{})
	}
	p := st.rooms.Participant("room", "p0")
	message := []byte("message")
	b.ReportAllocs()
	for b.Loop() {
		if err := p.SendData(message, false, nil); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) WriteData(bool, []byte) error { return nil }
