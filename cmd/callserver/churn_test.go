package main

import (
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"callserver/bench"
	"callserver/internal/config"
)

func calls(base string, load bench.Load) bench.Options {
	return bench.Options{
		URL: base + sfuPath, Key: config.DevelopmentKey, Secret: config.DevelopmentSecret, Load: load,
		JoinRate: 50, Warmup: 500 * time.Millisecond, Duration: 500 * time.Millisecond, Timeout: time.Minute,
	}
}

// Rooms that people opened and left leave no goroutine behind; make long PART=churn looks at memory, too.
func TestRoomsLeaveNothing(t *testing.T) {
	s := serve(t, []string{"CALLSERVER_LIMITS_LOAD_CPU=0"})
	round := func(prefix string) {
		report, err := bench.Run(t.Context(), calls(s.base, bench.Load{Rooms: 10, Publishers: 2, Audio: true, Prefix: prefix}))
		if err != nil || report.Joins.Joined != 20 {
			t.Fatalf("%s: %+v, %v", prefix, report, err)
		}
	}
	round("first") // what is made once
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	idle := runtime.NumGoroutine()
	for calm := 0; calm < 20; calm++ { // clients that left are let go in the background
		<-poll.C
		if n := runtime.NumGoroutine(); n < idle {
			idle, calm = n, 0
		}
	}
	round("second")
	deadline := time.After(30 * time.Second)
	for n := runtime.NumGoroutine(); n > idle; n = runtime.NumGoroutine() {
		select {
		case <-poll.C:
		case <-deadline:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before 10 rooms of two came and went:\n%s", n, idle, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A server that is killed under a call and started again has everybody back.
func TestBackAfterKill(t *testing.T) {
	binary, dir := build(t), t.TempDir()
	addr := func() string { // that the server can have again
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	web := addr()
	_, media, err := net.SplitHostPort(addr())
	if err != nil {
		t.Fatal(err)
	}
	launch := func() *process {
		p := start(t, exec.Command(binary), dir, "CALLSERVER_HTTP_LISTEN="+web, "CALLSERVER_ADMIN_LISTEN=off", "CALLSERVER_MEDIA_UDP_PORT="+media, "CALLSERVER_MEDIA_TCP_PORT=off")
		p.said.wait(t, `msg=ready`)
		return p
	}
	first, lines := launch(), newJournal()
	o := calls("ws://"+web, bench.Load{Rooms: 2, Publishers: 2, Audio: true, Prefix: "kept"})
	o.Return, o.Duration, o.Progress = true, 10*time.Second, lines
	type result struct {
		report *bench.Report
		err    error
	}
	ended := make(chan result, 1) // one result
	go func() {
		report, err := bench.Run(t.Context(), o)
		ended <- result{report, err}
	}()
	lines.wait(t, `4 of 4 joined.*\n.*4 of 4 joined`)
	first.signal(t, syscall.SIGKILL)
	<-first.ended
	launch()
	r := <-ended
	if r.err != nil || r.report.Comebacks.Lost != 4 || r.report.Comebacks.Count != 4 {
		t.Fatalf("%+v, %v", r.report, r.err)
	}
	t.Logf("back %s after the kill", time.Duration(r.report.Comebacks.Max))
}
