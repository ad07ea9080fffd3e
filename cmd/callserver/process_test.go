package main

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "callserver")
	goCommand(t, "build", "-tags", "goolm", "-o", binary, "./cmd/callserver")
	return binary
}

// TestReadyIn150ms: the best of several starts, because the machine has other things to do.
func TestReadyIn150ms(t *testing.T) {
	binary := build(t)
	best := time.Hour
	for range 5 {
		began := time.Now()
		p := start(t, exec.Command(binary), t.TempDir(), freePorts...)
		p.said.wait(t, `msg=ready`)
		best = min(best, time.Since(began))
		p.signal(t, syscall.SIGTERM)
		if code := p.wait(t); code != exitOK {
			t.Fatalf("exit %d:\n%s", code, p.said)
		}
	}
	t.Logf("start to ready: %s", best)
	if best > 150*time.Millisecond {
		t.Errorf("start to ready took %s at best, want 150 ms", best)
	}
}

// TestSecondSignalQuits: a client that never finishes its request holds the drain up, until the operator insists.
func TestSecondSignalQuits(t *testing.T) {
	p := start(t, exec.Command(build(t)), t.TempDir(), freePorts...)
	base := p.said.wait(t, `for=clients at=http://(\S+)`)[1]
	p.said.wait(t, `msg=ready`)
	conn, err := net.Dial("tcp", base)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "POST /web/token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", base); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), "100 Continue") { // the handler reads the body now
		t.Fatalf("got %q, %v", answer[:n], err)
	}
	p.signal(t, syscall.SIGTERM)
	p.said.wait(t, `msg=draining`)
	began := time.Now()
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != -1 {
		t.Errorf("exit %d, want an end by the signal:\n%s", code, p.said)
	}
	if took := time.Since(began); took > drainTime/2 {
		t.Errorf("the second signal took %s", took)
	}
}
