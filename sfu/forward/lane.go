package forward

// Hot path: see ARCHITECTURE.md#packet

// A Lane is where the packets for some of the receivers are made and written, one after the other: an egress worker. A Writer that has one (a
// method Lane) is called there only; all others are called by Push itself. Source.Push hands over what arrived, and the lane calls
// Deliver soon after, with one goroutine at a time.
type Lane interface {
	// Take queues a delivery. It must not block; a lane that is full calls Drop.
	Take(d Delivery)
}

// laned is a Writer that has a lane.
type laned interface{ Lane() Lane }

func laneOf(w Writer) Lane {
	if l, ok := w.(laned); ok {
		return l.Lane()
	}
	return nil
}

// group is the receivers of one lane. It is never changed: the list of them is copied on write.
type group struct {
	lane  Lane // nil = no lane
	sinks []*Sink
}

// grouped sorts receivers by lane, keeping their order.
func grouped(sinks []*Sink) []group {
	var out []group
next:
	for _, k := range sinks {
		for i := range out {
			if g := &out[i]; g.lane == k.lane {
				g.sinks = append(g.sinks, k)
				continue next
			}
		}
		out = append(out, group{lane: k.lane, sinks: []*Sink{k}})
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
		deliver(list[:n], work)
		list = list[n:]
	}
	work.put()
}

// level finds out by how much each packet is shorter than the longest of its stream.
func level(list []Delivery) {
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

func deliver(list []Delivery, work *scratch) {
	var needed, taken [maxStreams]bool
	if len(list) > 1 {
		level(list)
	}
	for _, k := range list[0].to.sinks {
		for i := range list {
			in := &list[i].in
			sent, waiting := k.push(in, work)
			taken[in.stream] = taken[in.stream] || sent
			needed[in.stream] = needed[in.stream] || waiting
		}
	}
	s, at := list[0].source, list[len(list)-1].in.at
	for i := range list {
		list[i].in.packet.Release()
	}
	for stream := range needed {
		if taken[stream] {
			s.streams[stream].taken.Store(int64(at))
		}
		if needed[stream] {
			s.missKeyFrame(int8(stream), at)
		}
	}
}
