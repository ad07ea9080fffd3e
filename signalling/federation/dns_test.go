package federation

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// testDNS is a resolver for example.com that needs no socket. Of the names below, "inside" is at 127.0.0.1, "rebinding"
// nowhere at first and then there; a few have SRV records; nothing else exists.
func testDNS(t *testing.T) *net.Resolver {
	zone := &zone{}
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		served.Go(func() { zone.serve(server) })
		return client, nil
	}}
}

type zone struct {
	mu    sync.Mutex
	asked map[string]int
}

// serve answers queries as DNS over TCP has them (RFC 1035 §4.2.2) until the other end closes.
func (z *zone) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(query); err != nil {
			return
		}
		answer := must(z.answer(m).Pack())
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (z *zone) answer(m dnsmessage.Message) *dnsmessage.Message {
	q := m.Questions[0]
	r := &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, RCode: dnsmessage.RCodeSuccess},
		Questions: m.Questions[:1],
	}
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET, TTL: 1}
	srv := func(priority uint16, target string, port uint16) {
		r.Answers = append(r.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.SRVResource{
			Priority: priority, Target: dnsmessage.MustNewName(target), Port: port,
		}})
	}
	name := strings.ToLower(q.Name.String())
	switch {
	case q.Type == dnsmessage.TypeA && (name == "inside.example.com." || name == "rebinding.example.com." && z.again(name)):
		r.Answers = append(r.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
	case name == "inside.example.com.", name == "rebinding.example.com.": // exists, without such a record
	case q.Type != dnsmessage.TypeSRV:
		r.RCode = dnsmessage.RCodeNameError
	case name == "_matrix-fed._tcp.srv.example.com.", name == "_matrix._tcp.old.example.com.":
		srv(1, "target.example.com.", 9999)
	case name == "_matrix-fed._tcp.two.example.com.":
		srv(1, "gone.example.com.", 9999)
		srv(2, "target.example.com.", 9999)
	case name == "_matrix-fed._tcp.srv-inside.example.com.":
		srv(1, "inside.example.com.", 9999)
	default:
		r.RCode = dnsmessage.RCodeNameError
	}
	return r
}

// again reports whether a name is asked for more than the first time.
func (z *zone) again(name string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.asked == nil {
		z.asked = make(map[string]int)
	}
	z.asked[name]++
	return z.asked[name] > 1
}
