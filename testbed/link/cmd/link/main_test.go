//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callserver/testbed/link"
)

// This test binary is also the command itself and what runs at both ends, told by role.
const role = "LINK_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "link":
		main()
	case "echo":
		exit(echo())
	case "ask":
		exit(ask())
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

// echo sends back every datagram on the server's side.
func echo() error {
	conn, err := net.ListenPacket("udp4", serverAddress+":9")
	if err != nil {
		return err
	}
	buffer := make([]byte, 2000)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(buffer[:n], from); err != nil {
			return err
		}
	}
}

// ask measures a round trip, cuts UDP by the control socket, finds it cut, mends it, and prints what it saw.
func ask() error {
	conn, err := net.Dial("udp4", serverAddress+":9")
	if err != nil {
		return err
	}
	rtt, err := roundTrip(conn, 5*time.Second)
	if err != nil {
		return err
	}
	fmt.Println("round trip at least 40 ms:", rtt >= 40*time.Millisecond)
	for _, script := range []string{`{"steps": [{"loss": 1, "only": "udp"}]}`, `{}`, `{"steps": [{}]}`, `nonsense`} {
		answer, err := play(script)
		if err != nil {
			return err
		}
		_, err = roundTrip(conn, 300*time.Millisecond)
		fmt.Println("arrived:", err == nil, "counters:", json.Unmarshal(answer, new(link.Stats)) == nil)
	}
	return nil
}

// roundTrip repeats a datagram until one comes back: the server may not be listening yet.
func roundTrip(conn net.Conn, patience time.Duration) (time.Duration, error) {
	end := time.Now().Add(patience)
	for {
		sent := time.Now()
		if err := conn.SetReadDeadline(sent.Add(200 * time.Millisecond)); err != nil {
			return 0, err
		}
		if _, err := conn.Write([]byte("hello")); err == nil {
			if _, err = conn.Read(make([]byte, 100)); err == nil {
				return time.Since(sent), nil
			}
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("nothing came back within %v", patience)
		}
	}
}

func play(script string) ([]byte, error) {
	control, err := net.Dial("unix", os.Getenv("LINK_TEST_CONTROL"))
	if err != nil {
		return nil, err
	}
	defer control.Close()
	if _, err := control.Write([]byte(script)); err != nil {
		return nil, err
	}
	if err := control.(*net.UnixConn).CloseWrite(); err != nil {
		return nil, err
	}
	answer := new(bytes.Buffer)
	_, err = answer.ReadFrom(control)
	return answer.Bytes(), err
}

func linkCommand(t *testing.T, parameters ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], parameters...)
	c.Env = append(os.Environ(), role+"=link")
	return c
}

func TestCommandNeedsRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("is root: the refusal shows only to others")
	}
	output, err := linkCommand(t, "true").CombinedOutput()
	if err == nil || !strings.Contains(string(output), "needs root") {
		t.Errorf("error %v, output %q", err, output)
	}
}

// Real TUN devices, namespaces and processes: delay, a cut by the control socket, the exit status, and nothing left behind.
func TestCommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces and TUN devices")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no TUN devices here: %v", err)
	}
	directory := t.TempDir()
	script := filepath.Join(directory, "script.json")
	if err := os.WriteFile(script, []byte(`{"steps": [{"delay_ms": 20}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(directory, "control")
	trace := filepath.Join(directory, "trace")
	c := linkCommand(t, "--script", script, "--control", control, "--trace", trace, "--near", role+"=echo "+os.Args[0], "--", "env", role+"=ask", os.Args[0])
	c.Env = append(c.Env, "LINK_TEST_CONTROL="+control)
	output, err := c.CombinedOutput()
	want := `round trip at least 40 ms: true
arrived: false counters: true
arrived: false counters: true
arrived: true counters: true
arrived: true counters: false
`
	if err != nil || string(output) != want {
		t.Errorf("error %v, output:\n%s\nwant:\n%s", err, output, want)
	}
	if lines, err := os.ReadFile(trace); err != nil || !strings.Contains(string(lines), `"queue_ms":`) {
		t.Errorf("trace: %v, %q", err, lines)
	}
	status := linkCommand(t, "sh", "-c", "exit 7")
	if err := status.Run(); status.ProcessState.ExitCode() != 7 {
		t.Errorf("%v, want the command's exit status 7", err)
	}
	missing, _ := linkCommand(t, "no-such-command").CombinedOutput()
	if !strings.Contains(string(missing), "no-such-command") {
		t.Errorf("a missing command: %q", missing)
	}
	if interfaces, _ := net.Interfaces(); strings.Contains(fmt.Sprint(interfaces), "link-") {
		t.Errorf("a device is left behind: %v", interfaces)
	}
}
