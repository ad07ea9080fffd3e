package rtc

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"strings"
	"testing"
	"time"

	"callserver/sfu/codec"
	"callserver/sfu/forward"
	"callserver/sfu/packet"
)

// nowhere is a forward.Writer.
type nowhere struct{}

func (nowhere) WriteRTP(*forward.Outgoing) error { return nil }

// TestOverflow: what our own sockets lose is not asked for, neither while they do nor when it shows afterwards, nor later; what is lost elsewhere is.
func TestOverflow(t *testing.T) {
	e := &Engine{log: slog.New(slog.DiscardHandler)}
	u := newUplink(&Peer{engine: e, client: &connection{ssrc: 1}}, "0")
	source := forward.NewSource(forward.SourceOptions{Codec: codec.Opus})
	source.Attach(nowhere{}, forward.SinkOptions{})
	u.source.Store(source)
	now, seq := time.Unix(1000, 0), uint16(7)
	push := func() {
		now = now.Add(20 * time.Millisecond)
		b := binary.BigEndian.AppendUint16([]byte{0x80, 111}, seq)
		b = append(binary.BigEndian.AppendUint32(b, uint32(seq)*960), 0, 0, 0, 9, 'x')
		seq++
		p := packet.Get(packet.Capacity)
		if err := p.Parse(copy(p.Buffer(), b), packet.Extensions{}); err != nil {
			t.Fatal(err)
		}
		u.streams[0].ssrc.Store(p.SSRC)
		source.Push(forward.Layer{}, p, now)
	}
	push()
	dropped := uint32(0xfffffff0) // it wraps
	e.watchOverflow(dropped, now)
	for _, c := range []struct {
		name   string
		drops  uint32
		passed time.Duration
		ask    int
	}{
		{"lost elsewhere", 0, 20 * time.Millisecond, 1},
		{"a damaged datagram", 1, 20 * time.Millisecond, 1},
		{"an overflow", 100, 20 * time.Millisecond, 0},
		{"an overflow shows", 0, overflowHold / 2, 0},
		{"more of it", 100, overflowHold / 4, 0},
		{"that shows", 0, overflowHold - 40*time.Millisecond, 0},
		{"over", 0, 40 * time.Millisecond, 1},
		{"still over", 0, 20 * time.Millisecond, 1},
	} {
		dropped += c.drops
		now = now.Add(c.passed)
		e.watchOverflow(dropped, now)
		seq++
		push()
		if !source.Waits() {
			t.Fatalf("%s: no loss is seen", c.name)
		}
		if asked := len(u.losses(nil, now)); asked != c.ask {
			t.Errorf("%s: %d requests, want %d", c.name, asked, c.ask)
		}
		if waits := source.Waits(); waits != (c.ask > 0) {
			t.Errorf("%s: waits for an answer: %v", c.name, waits)
		}
		source.GiveUp() // each case by itself
	}
	if got := e.counts.dropped.Load(); got != 201 {
		t.Errorf("%d dropped, want 201", got)
	}
}

// TestOverflowIsTold: once a minute, with all that was lost since.
func TestOverflowIsTold(t *testing.T) {
	var log bytes.Buffer
	e := &Engine{log: slog.New(slog.NewTextHandler(&log, nil))}
	now, dropped := time.Unix(1000, 0), uint32(0)
	for range 3000 { // a minute
		dropped += overflowDrops
		e.watchOverflow(dropped, now)
		now = now.Add(tickInterval)
	}
	e.watchOverflow(dropped, now)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], "packets=16") || !strings.HasSuffix(lines[1], "packets=47984") || !strings.Contains(lines[0], "net.core.rmem_max") {
		t.Errorf("told:\n%s", log.String())
	}
	log.Reset()
	for range 10000 {
		dropped++
		e.watchOverflow(dropped, now)
		now = now.Add(time.Second)
	}
	if log.Len() > 0 {
		t.Errorf("told of damaged datagrams:\n%s", log.String())
	}
}
