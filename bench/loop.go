package bench

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
)

const (
	// tick is how often a loop sends what is due, if anything is: fine enough that packets arrive at the server spread as those of
	// many senders do.
	tick = 250 * time.Microsecond
	// readInterval is how often the sockets of connected participants are read. The kernel notes when packets arrive,
	// so reading late costs nothing and fills batches.
	readInterval = 4 * time.Millisecond
	// turnInterval is how often every link is asked for RTCP.
	turnInterval = 20 * time.Millisecond

	wheelSlots = 256 // ticks; more than the longest frame interval
	maxRTCP    = 1200
)

// A loop moves the media of its share of the participants: it sends what is due, reads sockets, and says RTCP. One
// goroutine; add, attach and drop are safe for concurrent use and take effect on its next turn.
type loop struct {
	clock  clock
	tracks []*track
	fresh  *poller // sockets without media yet: Pion waits for what arrives
	steady *poller
	in     *inbox
	out    *batch

	sockets map[int]*socket
	joining int // sockets without media yet
	links   []*link
	wheel   [wheelSlots][]slotted
	at      int64 // tick that was served last
	window  window
	latency histogram
	late    histogram // how much later than due frames left
	unsent  uint64    // packets that the kernel did not take

	received, sent atomic.Uint64 // packets, for the progress line
	newWindow      atomic.Pointer[window]

	mu      sync.Mutex
	pending []func()
}

// slotted is a stream that waits for its time.
type slotted struct {
	link   *link
	stream *stream
}

// A clock counts from the start of the run, on the monotonic clock.
type clock struct{ base time.Time }

func (c clock) now() time.Duration { return time.Since(c.base) }

func newLoop(c clock, tracks []*track) (*loop, error) {
	lp := &loop{clock: c, tracks: tracks, in: newInbox(), out: newBatch(), sockets: map[int]*socket{}, window: never}
	var err error
	if lp.fresh, err = newPoller(); err != nil {
		return nil, err
	}
	if lp.steady, err = newPoller(); err != nil {
		lp.fresh.close()
		return nil, err
	}
	return lp, nil
}

// do runs f on the loop's next turn.
func (lp *loop) do(f func()) {
	lp.mu.Lock()
	defer lp.mu.Unlock()
	lp.pending = append(lp.pending, f)
}

// add starts reading a socket for Pion.
func (lp *loop) add(s *socket) {
	lp.do(func() {
		if lp.fresh.add(s) != nil {
			s.release() // Pion notices
			return
		}
		lp.sockets[s.fd] = s
		lp.joining++
	})
}

// attach gives a link its media keys and starts its media.
func (lp *loop) attach(l *link) {
	lp.do(func() {
		s := l.socket
		s.link = l
		lp.fresh.remove(s)
		lp.joining--
		s.connect(&l.to)
		_ = lp.steady.add(s)
		l.nextSend = lp.clock.now() + reportInterval
		lp.links = append(lp.links, l)
	})
}

// drop ends a participant's media and closes its socket; its counts stay.
func (lp *loop) drop(s *socket) {
	lp.do(func() {
		if s.fd < 0 || lp.sockets[s.fd] != s {
			return
		}
		delete(lp.sockets, s.fd)
		if l := s.link; l != nil {
			l.gone = true // its streams leave the wheel when their time comes
			lp.links = slices.DeleteFunc(lp.links, func(o *link) bool { return o == l })
		} else {
			lp.joining--
		}
		s.release() // which takes it out of the poller as well
	})
}

// publish starts streams of an attached link, each at a moment of its own.
func (lp *loop) publish(l *link, streams []*stream) {
	lp.do(func() {
		for _, s := range streams {
			s.next = lp.clock.now() + time.Duration(s.noise.Int64N(int64(s.shape.interval)))
			l.streams = append(l.streams, s)
			lp.schedule(slotted{l, s})
		}
	})
}

// run works until ctx ends, then releases every socket.
func (lp *loop) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	lp.at = int64(lp.clock.now() / tick)
	var nextRead, nextTurn time.Duration
	for ctx.Err() == nil {
		lp.catchUp()
		now := lp.clock.now()
		lp.sendDue(now)
		lp.fresh.ready(lp.read)
		if now >= nextRead {
			nextRead = now + readInterval
			lp.steady.ready(lp.read)
		}
		if now >= nextTurn {
			nextTurn = now + turnInterval
			lp.speak(now)
		}
		if rest := min(lp.nextDue(nextRead), nextTurn) - lp.clock.now(); rest > tick/8 {
			pause(rest)
		}
	}
	lp.catchUp()
	for _, s := range lp.sockets {
		s.release()
	}
	lp.fresh.close()
	lp.steady.close()
}

// nextDue is when there is something to send, at most limit: a wake-up costs as much as several packets.
func (lp *loop) nextDue(limit time.Duration) time.Duration {
	if lp.joining > 0 {
		limit = min(limit, time.Duration(lp.at+2)*tick)
	}
	for at := lp.at; time.Duration(at+1)*tick < limit; at++ {
		if len(lp.wheel[at%wheelSlots]) > 0 {
			return time.Duration(at+1) * tick
		}
	}
	return limit
}

// catchUp does what others asked for.
func (lp *loop) catchUp() {
	if w := lp.newWindow.Load(); w != nil {
		lp.window = *w
	}
	lp.mu.Lock()
	pending := lp.pending
	lp.pending = nil
	lp.mu.Unlock()
	for _, f := range pending {
		f()
	}
}

func (lp *loop) schedule(s slotted) {
	slot := &lp.wheel[int64(s.stream.next/tick)%wheelSlots]
	*slot = append(*slot, s)
}

// sendDue sends the frames whose time has come.
func (lp *loop) sendDue(now time.Duration) {
	last := int64(now / tick)
	for at := max(lp.at, last-wheelSlots+1); at <= last; at++ {
		due := lp.wheel[at%wheelSlots]
		lp.wheel[at%wheelSlots] = nil
		for _, s := range due {
			if s.link.gone {
				continue
			}
			for s.stream.next <= now {
				lp.late.add(now - s.stream.next)
				lp.sendFrame(s.link, s.stream)
			}
			lp.schedule(s)
		}
		if lp.wheel[at%wheelSlots] == nil {
			lp.wheel[at%wheelSlots] = due[:0]
		}
	}
	lp.at = last
}

func (lp *loop) sendFrame(l *link, s *stream) {
	now := lp.clock.now()
	s.sendFrame(now, lp.window.holds(now), l.keys.out, &l.transport, lp.out.slot, func(n int) { lp.out.commit(n) })
	lp.sent.Add(uint64(lp.out.n))
	lp.unsent += uint64(lp.out.send(l.socket, &l.to))
}

// read takes what waits in one socket.
func (lp *loop) read(fd int) {
	s := lp.sockets[fd]
	if s == nil { // dropped since it was told to be ready
		return
	}
	for n := runBatch; n == runBatch; {
		n = lp.in.receive(s)
		t := time.Now()
		now := t.Sub(lp.clock.base)
		for i := range n {
			run, size, wall := lp.in.run(i)
			arrival := now
			if wall != 0 {
				arrival = now - time.Duration(t.UnixNano()-wall)
			}
			for len(run) > 0 {
				b := run[:min(size, len(run))]
				run = run[len(b):]
				lp.received.Add(1)
				switch {
				case b[0] < 128 || b[0] > 191: // RFC 7983: not RTP or RTCP
					select {
					case s.control <- controlPacket{append([]byte(nil), b...), lp.in.from(i)}:
					default:
					}
				case s.link != nil:
					s.link.receive(b, arrival, now, lp)
				}
			}
		}
	}
	if l := s.link; l != nil && len(l.resends) > 0 {
		lp.sendAgain(l)
	}
}

// sendAgain answers requests for lost packets.
func (lp *loop) sendAgain(l *link) {
	for _, r := range l.resends {
		if n := r.stream.again(r.seq, l.keys.out, lp.out.slot()); n > 0 {
			lp.out.commit(n)
		}
	}
	l.resends = l.resends[:0]
	lp.unsent += uint64(lp.out.send(l.socket, &l.to))
}

// speak sends the RTCP that is due.
func (lp *loop) speak(now time.Duration) {
	for _, l := range lp.links {
		packets := l.requests(now)
		if now >= l.nextSend {
			l.nextSend += reportInterval
			packets = append(packets, l.reports(now, time.Now())...)
		}
		lp.sendRTCP(l, packets)
	}
}

// sendRTCP packs what fits into datagrams (RFC 5506: reduced size is negotiated).
func (lp *loop) sendRTCP(l *link, packets []rtcp.Packet) {
	for len(packets) > 0 {
		n, size := 0, 0
		for n < len(packets) && (n == 0 || size+packets[n].MarshalSize() <= maxRTCP) {
			size += packets[n].MarshalSize()
			n++
		}
		if raw, err := rtcp.Marshal(packets[:n]); err == nil {
			if b, err := l.keys.outRTCP.EncryptRTCP(nil, raw, nil); err == nil {
				lp.out.commit(copy(lp.out.slot(), b))
				lp.unsent += uint64(lp.out.send(l.socket, &l.to))
			}
		}
		packets = packets[n:]
	}
}
