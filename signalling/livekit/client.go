package livekit

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"callserver/sfu"
	"callserver/signalling"
	"callserver/signalling/token"
)

const (
	// linger is how long the websocket of a client whose media connection failed stays open. Clients that leave close
	// their media at once, and the leave itself may be slower.
	linger = time.Second
	// hearingWithin is how long ago a client may have said something that is heard: it pings us more often.
	hearingWithin = 2 * clientPingInterval * time.Second
	// resumeWithin is how long a client whose media connection failed may take to come back.
	resumeWithin = 5 * time.Second
	// repairWithin is how long it may then take to have media again; clients themselves give up after 15 s.
	repairWithin = 20 * time.Second
	// arriveWithin is how long a server that stops waits for a client whose first media connection is being made. Clients
	// that are sent away in the middle of that lose it, give up, and do not come back.
	arriveWithin = 2 * time.Second
	// arrived is how much later than here the connection may be up in the client's eyes.
	arrived = 500 * time.Millisecond
)

// A client is one participant on the protocol's side. Its loop owns everything below the channels and outlives the
// websocket:
//
//	            leave, or websocket gone before media was ever up
//	connected ------------------------------------------------------> over
//	   |   ^                                                           ^
//	   |   | resume                                                    |
//	   v   |                                                           |
//	detached ----------------------------------------------------------+
//	            media failed, and not back within 5 s
//
// Connected turns into detached when the websocket goes, or a moment after media failed and leave{RESUME} said so.
type client struct {
	edge *Edge
	sess *signalling.Session
	log  *slog.Logger

	resumes   chan resumption // a new connection for the client; taken by the loop or never
	dismissed chan struct{}   // closed when the server shuts down
	dismissal sync.Once
	done      chan struct{} // closed when the loop has ended

	grant    token.Grant
	sdk      string    // ClientInfo.sdk in lower case
	protocol int32     // ClientInfo.protocol
	pipe     *pipe     // nil while the client is detached
	text     bool      // the client speaks JSON
	heardAt  time.Time // when the client said something last
	refresh  time.Time
	hangUpAt time.Time // when the connection is closed; zero = not
	deadline time.Time // when the client is given up; zero = not
	awayAt   time.Time // when the client is sent away because the server stops; zero = it does not
	sequence uint32    // of the last reliable data message taken from the client
	nonces   nonces
	failing  failures
	over     bool
	reason   sfu.Reason // why, once over
}

// failures are what a test suite asked to go wrong.
type failures struct{ cutResume, cutResumeSilently bool }

// A resumption hands a new connection to a client's loop.
type resumption struct {
	pipe      *pipe
	admission admission
}

// newClient joins the room and prepares the first frames; the loop is not running yet.
func newClient(ctx context.Context, e *Edge, a admission, p *pipe) (*client, error) {
	info := clientInfo(a.hello.GetClientInfo())
	sess, err := e.server.Join(ctx, a.grant, signalling.PeerOptions{
		Single:         a.hello.single,
		Client:         info,
		AutoSubscribe:  a.hello.GetConnectionSettings().GetAutoSubscribe(),
		AdaptiveStream: a.hello.GetConnectionSettings().GetAdaptiveStream(),
		AllowPause:     a.hello.GetConnectionSettings().GetSubscriberAllowPause(),
		Metadata:       a.hello.GetMetadata(),
		Attributes:     a.hello.GetParticipantAttributes(),
	})
	if err != nil {
		return nil, err
	}
	c := &client{
		edge: e, sess: sess, grant: a.grant, pipe: p, sdk: info.SDK, protocol: info.Protocol,
		log:       e.log.With("room", a.grant.Room, "identity", a.grant.Identity, "participant", sess.SID()),
		resumes:   make(chan resumption),
		dismissed: make(chan struct{}),
		done:      make(chan struct{}),
	}
	c.log.Info("participant joined", "sdk", info.SDK, "version", info.Version, "protocol", info.Protocol, "single", a.hello.single)
	c.greet(a.hello)
	return c, nil
}

// dismiss asks the loop to send the client away because the server stops. Safe for concurrent use.
func (c *client) dismiss() { c.dismissal.Do(func() { close(c.dismissed) }) }

// attach gives the client a new connection; false if its loop has ended or ctx does. Safe for concurrent use.
func (c *client) attach(ctx context.Context, r resumption) bool {
	select {
	case c.resumes <- r:
		return true
	case <-c.done:
		return false
	case <-ctx.Done():
		return false
	}
}

// loop runs until the client has left for good.
func (c *client) loop() {
	defer c.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	dismissed := c.dismissed
	for c.tell(); !c.over; c.tell() {
		timer.Reset(time.Until(c.nextTimer()))
		select {
		case f, ok := <-c.frames():
			if ok {
				c.take(f)
			} else {
				c.detached()
			}
		case r := <-c.resumes:
			c.resume(r)
		case <-c.sess.Ready():
		case now := <-timer.C:
			c.expire(now)
		case <-dismissed:
			dismissed = nil
			c.sendAway(time.Now())
		}
	}
}

// frames is what the client sends; nil, which never yields, while it is detached.
func (c *client) frames() <-chan frame {
	if c.pipe == nil {
		return nil
	}
	return c.pipe.up
}

// sendAway has the client join anew because the server stops: at once, or when its first connection is up.
func (c *client) sendAway(now time.Time) {
	c.awayAt = now
	if !c.sess.EverConnected() {
		c.awayAt = now.Add(arriveWithin)
	}
}

// connected notes that media is up, for the first time or again.
func (c *client) connected(now time.Time) {
	c.deadline = time.Time{}
	if !c.awayAt.IsZero() {
		c.awayAt = now.Add(arrived)
	}
}

// end takes the participant out of the room, and only then closes the connection behind the last frame.
func (c *client) end() {
	c.sess.Leave(c.reason)
	c.hangUp()
	c.edge.remove(c)
	close(c.done)
	c.log.Info("participant left", "reason", livekit.DisconnectReason(c.reason).String())
}

func (c *client) nextTimer() time.Time {
	next := c.refresh
	for _, t := range []time.Time{c.deadline, c.hangUpAt, c.awayAt} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// expire does what is due.
func (c *client) expire(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case due(c.awayAt):
		c.finish(sfu.ServerShutdown, livekit.LeaveRequest_RECONNECT)
	case due(c.deadline):
		c.finish(sfu.ConnectionTimeout, livekit.LeaveRequest_RECONNECT)
	case due(c.hangUpAt):
		c.hangUp()
	case due(c.refresh):
		c.sendToken()
	}
}

// recovered is deferred where a client's bytes are worked on: what they make go wrong ends this client and no other.
func (c *client) recovered() {
	if what := recover(); what != nil {
		c.edge.counts.panics.Add(1)
		c.log.Error("panic in request", "panic", what, "stack", string(debug.Stack()))
		c.finish(sfu.StateMismatch, livekit.LeaveRequest_RECONNECT)
	}
}

// take handles one frame.
func (c *client) take(f frame) {
	defer c.recovered()
	var req livekit.SignalRequest
	if err := decode(f, &req); err != nil {
		c.log.Debug("frame not understood", "bytes", len(f.data), "err", err)
		return
	}
	c.text, c.heardAt = c.text || f.text, time.Now()
	c.tell() // what the room did before comes first: an answer may mention it
	c.handle(&req)
}

func decode(f frame, req *livekit.SignalRequest) error {
	if f.text {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(f.data, req)
	}
	return proto.Unmarshal(f.data, req)
}

// encode makes the frame of a message.
func encode(m *livekit.SignalResponse, text bool) (f frame, err error) {
	f = frame{text: text}
	if !text {
		f.data, err = proto.Marshal(m)
		return f, err
	}
	if m, err = whole(m); err == nil {
		f.data, err = protojson.Marshal(m)
	}
	return f, err
}

// send queues a message to the client; without a connection it is lost, and resuming makes up for it.
func (c *client) send(m *livekit.SignalResponse) {
	if c.pipe == nil || !c.understands(m) {
		return
	}
	f, err := encode(m, c.text)
	if err != nil {
		c.log.Error("message not sent", "err", fmt.Errorf("encode %T: %w", m.Message, err))
		return
	}
	if !c.pipe.push(f) {
		c.edge.counts.cut.Add(1)
		c.log.Warn("connection cut", "why", "client does not read", "queued", downQueue)
		c.hangUp()
	}
}

// understands reports whether the client survives the message: Rust SDKs of former protocols stop at an unknown one.
func (c *client) understands(m *livekit.SignalResponse) bool {
	if c.sdk != "rust" || c.protocol >= 10 {
		return true
	}
	switch m.Message.(type) {
	case *livekit.SignalResponse_TrackSubscribed, *livekit.SignalResponse_RequestResponse:
		return false
	}
	return true
}

// hangUp closes the connection once the client has read what was sent; the session goes on.
func (c *client) hangUp() {
	if c.pipe != nil {
		c.pipe.finish()
		c.pipe, c.hangUpAt = nil, time.Time{}
	}
}

// detached deals with a websocket that is gone without a leave. Media goes on, if there ever was any, and the client
// may resume; whether it is alive shows in the media connection.
func (c *client) detached() {
	c.hangUp()
	if !c.sess.EverConnected() {
		c.close(sfu.SignalClose)
	}
}

// silent deals with a media connection over which nothing comes: if the client is heard, it is asked to resume at once, which it would otherwise do
// after twice the time. If it is not, its network is gone, and nothing that we say would reach it.
func (c *client) silent(now time.Time) {
	if c.pipe != nil && now.Sub(c.heardAt) < hearingWithin && c.sess.EverConnected() {
		c.sess.Lost()
		c.sendLeave(sfu.UnknownReason, livekit.LeaveRequest_RESUME)
	}
}

// failed deals with a dead media connection: the client has to come back soon, and to offer anew. What it says
// meanwhile counts, above all that it leaves.
func (c *client) failed() {
	now := time.Now()
	c.deadline = now.Add(resumeWithin)
	if c.pipe != nil {
		c.sendLeave(sfu.UnknownReason, livekit.LeaveRequest_RESUME)
		c.hangUpAt = now.Add(linger)
	}
}

// finish sends the client away, and ends the session behind the last frame.
func (c *client) finish(reason sfu.Reason, action livekit.LeaveRequest_Action) {
	c.sendLeave(reason, action)
	c.close(reason)
}

// close ends the session without a word.
func (c *client) close(reason sfu.Reason) {
	if !c.over {
		c.over, c.reason = true, reason
	}
}

// resume takes over a new connection. Clients drop whatever comes before reconnect.
func (c *client) resume(r resumption) {
	c.hangUp()
	c.tell() // to nobody: the snapshot below is newer
	switch {
	case c.over:
		mismatch(r.pipe)
		return
	case c.failing.cutResumeSilently:
		c.failing = failures{}
		r.pipe.finish()
		return
	case !c.deadline.IsZero():
		c.deadline = time.Now().Add(repairWithin)
	}
	why := r.admission.hello.ReconnectReason
	c.log.Info("participant resumed", "why", why.String())
	if why == livekit.ReconnectReason_RR_PUBLISHER_FAILED || why == livekit.ReconnectReason_RR_SUBSCRIBER_FAILED {
		c.sess.Lost()
	}
	c.sess.Return()
	c.pipe, c.text = r.pipe, false
	c.grant.Validity = r.admission.grant.Validity // what it allows was settled when the client joined
	c.sendReconnect()
	c.sess.Resume()
	if c.failing.cutResume {
		c.failing = failures{}
		c.hangUp()
		return
	}
	if state := r.admission.hello.SyncState; state != nil {
		c.syncState(state)
	}
	if offer := r.admission.hello.PublisherOffer; offer != nil {
		c.tell()
		c.offer(offer)
	}
}
