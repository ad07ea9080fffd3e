package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// Who calls, where and from which address is in the log of a whole server only where the operator wants it, at any level;
// tokens never are.
func TestLogOfIdentifiers(t *testing.T) {
	const room, identity, device, address = "kitchen-of-alice", "@alice:example.org:LAPTOP", "SECONDDEVICE", "203.0.113.9"
	for _, wanted := range []bool{false, true} {
		// Keys of its own: with the development key a request that was passed on is not answered.
		environ := []string{"CALLSERVER_LOG_LEVEL=debug", "CALLSERVER_ROOM_AUTO_CREATE=true", "CALLSERVER_KEYS={one: 0123456789abcdef0123456789abcdef}"}
		if wanted {
			environ = append(environ, "CALLSERVER_LOG_IDENTIFIERS=true")
		}
		s := serve(t, environ)
		var minted, complaints bytes.Buffer
		if code := run(t.Context(), []string{"token", "--room", room, "--identity", identity}, environ, &minted, &complaints); code != exitOK {
			t.Fatalf("token: exit %d: %s", code, &complaints)
		}
		jwt := strings.TrimSpace(minted.String())
		conn, _ := join(t, s.base, sfuPath+"/rtc", jwt)
		_ = conn.Close(websocket.StatusNormalClosure, "")
		s.said.wait(t, `msg="participant left"`)
		body := `{"room":"!` + room + `:example.org","device_id":"` + device + `","openid_token":{"access_token":"OPENID","matrix_server_name":"example.org"}}`
		ask, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base+authoriserPath+"/sfu/get", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		ask.Header.Set("X-Forwarded-For", address)
		answer, err := http.DefaultClient.Do(ask)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		s.said.wait(t, `msg="call access refused"`)
		http.DefaultClient.CloseIdleConnections()
		s.stop()
		log := s.said.String()
		for _, secret := range []string{jwt, jwt[strings.LastIndexByte(jwt, '.')+1:], "OPENID"} {
			if strings.Contains(log, secret) {
				t.Errorf("identifiers %t: a token is in the log:\n%s", wanted, log)
			}
		}
		for _, who := range []string{room, "alice", device, address} {
			if strings.Contains(log, who) != wanted {
				t.Errorf("identifiers %t: %q is in the log: %t:\n%s", wanted, who, !wanted, log)
			}
		}
	}
}
