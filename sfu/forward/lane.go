package forward

// Hot path: see ARCHITECTURE.md#packet

import (
	"unsafe"

	"callserver/sfu/prefetch"
)

// A Lane is where the packets for some of the receivers are made and written, one after the other: an egress worker. A Writer that has one (a
// method Lane) is called there only; all others are called by Push itself. Source.Push hands over what arrived, and the lane calls
// Deliver soon after, with one goroutine at a time.
type Lane interface {
	// Take queues a delivery. It must not block; a lane that is full calls Drop.
	Take(d Delivery)
}

// laned is a Writer that has a lane.
type laned interface{ Lane() Lane }

// fetcher is a Writer that can have the processor fetch what WriteRTP will need. Fetch is called before it, on the lane, with the steps 0, 1 and 2, each a packet or
// more after the other: it looks only at what the step before fetched, and waits for nothing.
type fetcher interface{ Fetch(step int) }

func laneOf(w Writer) Lane {
	if l, ok := w.(laned); ok {
		return l.Lane()
	}
	return nil
}

// group is the receivers of one lane. It is never changed: the list of them is copied on write.
type group struct {
	lane  Lane // nil = no lane
	sinks []member
}

// member is a receiver, with what is to be known of it before any of its memory is at hand.
type member struct {
	*Sink
	fetcher fetcher // its Writer, nil if that is none
}

// fetchSteps is how many receivers before its turn what one needs begins to be fetched: memory takes as long as one or two packets.
const fetchSteps = 3

// fetch has the processor fetch what the receiver's next packet needs.
func (m *member) fetch(step int) {
	if step == 0 {
		prefetch.Lines(unsafe.Pointer(m.Sink), hotLines)
	}
	if m.fetcher != nil {
		m.fetcher.Fetch(step)
	}
}

// grouped sorts receivers by lane, keeping their order.
func grouped(sinks []*Sink) []group {
	var out []group
next:
	for _, k := range sinks {
		m := member{Sink: k}
		m.fetcher, _ = k.writer.(fetcher)
		for i := range out {
			if g := &out[i]; g.lane == k.lane {
				g.sinks = append(g.sinks, m)
				continue next
			}
		}
		out = append(out, group{lane: k.lane, sinks: []member{m}})
	}
	return out
}

// A Delivery is one packet on its way to the receivers of a lane. Whoever has it must pass it to Deliver or call Drop, once.
type Delivery struct {
	source *Source
	to     *group
	in     inbound
}

// Drop gives the packet up.
func (d *Delivery) Drop() { d.in.packet.Release() }

// Deliver writes packets to their receivers: of those that belong together, all to the first, then all to the next, so that what
// goes to one address is made in one go. The deliveries are used up.
func Deliver(list []Delivery) {
	work := scratches.Get().(*scratch)
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].to == list[0].to {
			n++
		}
		work.bundles = append(work.bundles, bundle{list: list[:n]})
		for i := range list[0].to.sinks {
			work.turns = append(work.turns, turn{&list[0].to.sinks[i], len(work.bundles) - 1})
		}
		level(list[:n])
		list = list[n:]
	}
	for i := -fetchSteps; i < len(work.turns); i++ {
		for step := range fetchSteps {
			if next := i + fetchSteps - step; next >= 0 && next < len(work.turns) {
				work.turns[next].to.fetch(step)
			}
		}
		if i >= 0 {
			t := &work.turns[i]
			work.bundles[t.bundle].deliver(t.to.Sink, work)
		}
	}
	for i := range work.bundles {
		work.bundles[i].end()
	}
	clear(work.turns)
	clear(work.bundles)
	work.turns, work.bundles = work.turns[:0], work.bundles[:0]
	work.put()
}

// bundle is deliveries to the same receivers.
type bundle struct {
	list          []Delivery
	needed, taken [maxStreams]bool
}

// turn is a receiver that is to get a bundle.
type turn struct {
	to     *member
	bundle int
}

// level finds out by how much each packet is shorter than the longest of its stream.
func level(list []Delivery) {
	if len(list) == 1 {
		return
	}
	var longest [maxStreams]int
	for i := range list {
		in := &list[i].in
		longest[in.stream] = max(longest[in.stream], len(in.packet.Payload))
	}
	for i := range list {
		in := &list[i].in
		if n := longest[in.stream] - len(in.packet.Payload); n <= MaxFill && !in.padding {
			in.fill = uint8(n)
		}
	}
}

// deliver offers the packets to one receiver.
func (b *bundle) deliver(k *Sink, work *scratch) {
	for i := range b.list {
		in := &b.list[i].in
		sent, waiting := k.push(in, work)
		b.taken[in.stream] = b.taken[in.stream] || sent
		b.needed[in.stream] = b.needed[in.stream] || waiting
	}
}

// end lets go of the packets, and sees to what the receivers are waiting for.
func (b *bundle) end() {
	s, at := b.list[0].source, b.list[len(b.list)-1].in.at
	for i := range b.list {
		b.list[i].in.packet.Release()
	}
	for stream := range b.needed {
		if b.taken[stream] {
			s.streams[stream].taken.Store(int64(at))
		}
		if b.needed[stream] {
			s.missKeyFrame(int8(stream), at)
		}
	}
}
