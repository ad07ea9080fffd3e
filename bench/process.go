package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU time in /proc: USER_HZ is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// A process is what one process has used so far, from /proc.
type process struct {
	CPU      time.Duration // user and system
	RSS      int64         // bytes
	Switches int64         // context switches of all threads that live now
}

// processes are both sides at one moment.
type processes struct {
	at          time.Duration
	own, server process
	overflows   uint64 // datagrams lost to full receive buffers on this machine
}

func readProcess(pid int) (process, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	raw, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(raw)
	if err != nil {
		return process{}, fmt.Errorf("%s: %w", dir, err)
	}
	tasks, err := filepath.Glob(filepath.Join(dir, "task", "*", "status"))
	if err != nil {
		return process{}, err
	}
	for _, name := range tasks {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that ended
		}
		p.Switches += switches(raw)
	}
	return p, nil
}

// parseStat reads proc_pid_stat(5). The name in parentheses may hold anything, so fields count from the last one.
func parseStat(raw []byte) (process, error) {
	at := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[at+1:]))
	const utime, stime, rss = 14 - 3, 15 - 3, 24 - 3
	if at < 0 || len(fields) <= rss {
		return process{}, fmt.Errorf("cannot read %q", raw)
	}
	var v [3]int64
	for i, field := range []int{utime, stime, rss} {
		var err error
		if v[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return process{}, err
		}
	}
	return process{CPU: time.Duration(v[0]+v[1]) * clockTick, RSS: v[2] * int64(os.Getpagesize())}, nil
}

// switches adds up both kinds of context switches in a thread's status.
func switches(raw []byte) (n int64) {
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.HasSuffix(name, "voluntary_ctxt_switches") {
			v, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			n += v
		}
	}
	return n
}

// receiveOverflows reads RcvbufErrors of UDP, 0 where there is no such file.
func receiveOverflows() uint64 {
	raw, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return 0
	}
	var names []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "RcvbufErrors" && i < len(fields) {
				n, _ := strconv.ParseUint(fields[i], 10, 64)
				return n
			}
		}
	}
	return 0
}
