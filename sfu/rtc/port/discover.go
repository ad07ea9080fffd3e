package port

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun/v4"
)

const (
	// askInterval is how soon a STUN server is asked again that has not answered (RFC 8489 §6.2.1).
	askInterval = 500 * time.Millisecond
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 1500
)

// Discover asks STUN servers (host:port) under which address the world sees what we send from a local one. The first answer counts. Ports are not
// asked for: that of a mapping that a question makes says nothing about the one that leads to us.
func Discover(ctx context.Context, servers []string, local netip.Addr) (netip.Addr, error) {
	network := "udp4"
	if local.Is6() {
		network = "udp6"
	}
	var errs []error
	for _, server := range servers {
		addr, err := ask(ctx, network, server, local)
		if err == nil {
			return addr, nil
		}
		errs = append(errs, fmt.Errorf("ask %s from %s: %w", server, local, err))
		if ctx.Err() != nil {
			break
		}
	}
	return netip.Addr{}, errors.Join(errs...)
}

// serverTime bounds the questions to one server.
const serverTime = 4 * askInterval

func ask(ctx context.Context, network, server string, local netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTime)
	defer cancel()
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: local.AsSlice(), Zone: local.Zone()}}
	c, err := dialer.DialContext(ctx, network, server)
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // ends a read
	question, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.Fingerprint)
	if err != nil {
		return netip.Addr{}, err
	}
	for {
		if _, err := c.Write(question.Raw); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			return netip.Addr{}, err
		}
		_ = c.SetReadDeadline(time.Now().Add(askInterval))
		addr, err := answer(c, question)
		if err == nil {
			return addr, nil
		}
		if ctx.Err() != nil {
			return netip.Addr{}, fmt.Errorf("no answer: %w", context.DeadlineExceeded)
		}
		if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
			return netip.Addr{}, err
		}
	}
}

// answer reads until the answer to the question comes, or the connection's deadline.
func answer(c net.Conn, question *stun.Message) (netip.Addr, error) {
	b := make([]byte, maxAnswer)
	for {
		n, err := c.Read(b)
		if err != nil {
			return netip.Addr{}, err
		}
		m := &stun.Message{Raw: b[:n]}
		var mapped stun.XORMappedAddress
		if m.Decode() != nil || m.TransactionID != question.TransactionID || m.Type != stun.BindingSuccess || mapped.GetFrom(m) != nil {
			continue // whoever it was
		}
		if addr, ok := netip.AddrFromSlice(mapped.IP); ok {
			return addr.Unmap(), nil
		}
	}
}
