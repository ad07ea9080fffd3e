package sfu

import "sync"

// backlogLimit bounds, in bytes, the reliable messages kept for a participant whose data channels are not open yet. The oldest
// go first.
const backlogLimit = 100 << 10

// dataSink is where a participant's data messages go. Safe for concurrent use.
type dataSink struct {
	mu       sync.Mutex
	writer   DataWriter
	backlog  [][]byte // reliable, in order, while there is no writer or it is being caught up
	size     int
	catching bool // one caller writes the backlog; others append to it
	closed   bool
}

// SetDataWriter says where data messages go from now on; nil while there are no channels, and reliable messages are kept meanwhile.
func (p *Participant) SetDataWriter(w DataWriter) {
	d := &p.data
	d.mu.Lock()
	d.writer = w
	if d.catching || w == nil {
		d.mu.Unlock()
		return
	}
	d.catching = true
	d.mu.Unlock()
	d.catchUp()
}

// catchUp writes the backlog in order until there is none.
func (d *dataSink) catchUp() {
	for {
		d.mu.Lock()
		w, backlog := d.writer, d.backlog
		if w == nil || d.closed || len(backlog) == 0 {
			d.catching = false
			d.mu.Unlock()
			return
		}
		d.backlog, d.size = nil, 0
		d.mu.Unlock()
		for _, b := range backlog {
			_ = w.WriteData(true, b) // a writer that fails closes its peer by itself
		}
	}
}

// write sends or keeps one message.
func (d *dataSink) write(reliable bool, b []byte) {
	d.mu.Lock()
	w := d.writer
	if reliable && !d.closed && (w == nil || d.catching) {
		d.backlog = append(d.backlog, b)
		for d.size += len(b); d.size > backlogLimit && len(d.backlog) > 1; d.backlog = d.backlog[1:] {
			d.size -= len(d.backlog[0])
		}
		w = nil
	}
	d.mu.Unlock()
	if w != nil {
		_ = w.WriteData(reliable, b)
	}
}

func (d *dataSink) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed, d.writer, d.backlog = true, nil, nil
}

// SendData routes one message to everyone else, or to those named in to. It fails with ErrNotAllowed without CanPublishData and
// ErrClosed; what a withheld participant sends goes nowhere. The payload must not be written afterwards. Reliable messages of one sender arrive in the order of the calls if
// the calls do not overlap.
func (p *Participant) SendData(payload []byte, reliable bool, to []Identity) error {
	p.room.mu.Lock()
	var receivers []*dataSink
	err := ErrClosed
	switch {
	case p.state == Disconnected:
	case !p.member.Permission.CanPublishData:
		err = ErrNotAllowed
	case p.withheld:
		err = nil
	default:
		err, receivers = nil, p.room.receiversLocked(p, to)
	}
	p.room.mu.Unlock()
	for _, d := range receivers {
		d.write(reliable, payload)
	}
	return err
}

// receiversLocked returns where a message from sender goes.
func (rm *room) receiversLocked(sender *Participant, to []Identity) []*dataSink {
	if len(to) == 0 {
		out := make([]*dataSink, 0, len(rm.members))
		for _, q := range rm.members {
			if q != sender {
				out = append(out, &q.data)
			}
		}
		return out
	}
	out := make([]*dataSink, 0, len(to))
	seen := make(map[Identity]struct{}, len(to))
	for _, id := range to {
		if _, again := seen[id]; again {
			continue
		}
		seen[id] = struct{}{}
		if q := rm.byIdentity[id]; q != nil && q != sender {
			out = append(out, &q.data)
		}
	}
	return out
}
