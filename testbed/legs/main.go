// A legs program is many people with older clients (m.call.*), each of whom calls the bot of a room with sound, and the
// proxy between callserver and its homeserver that can slow down one room. It measures how long each waits for the
// other one's first packet, and hears when a call is ended and a membership cleared. It has neither a homeserver nor
// callserver: those are main.mjs's, which tells this program what to do by HTTP.
//
//	legs -to URL                             prints the addresses of control and proxy; URL is the homeserver's
//
//	POST /enter                              {"url", "bot", "callers": [{"user", "token", "room"}]}: who there is; returns when all hear
//	POST /delay?room=R&for=30s               has the proxy keep back requests about a room; 0s ends that
//	POST /place?rate=N[&room=R][&except=R]   all who are in no call place one, both of a room at once, N of them a second    {"legs", "seconds"}
//	POST /watch?since=MS&for=60s             waits until the bot has hung up every call and no membership is left   {"hungUp", "cleared", ...}
//	POST /hangup                             everybody hangs up; returns when no membership is left, within 30 s
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	to := flag.String("to", "", "base `URL` of the homeserver behind the proxy")
	flag.Parse()
	if err := run(ctx, *to); err != nil {
		fmt.Fprintln(os.Stderr, "legs:", err)
		os.Exit(1)
	}
}

// run serves control and proxy until ctx ends.
func run(ctx context.Context, to string) error {
	proxy, err := newProxy(to)
	if err != nil {
		return err
	}
	d := &desk{proxy: proxy}
	control := http.NewServeMux()
	for path, work := range map[string]func(*http.Request) (any, error){
		"/enter": d.enter, "/delay": d.delay, "/place": d.place, "/watch": d.watch, "/hangup": d.hangup,
	} {
		control.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			answer, err := work(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer) // whoever asked is gone: nobody is to be told
		})
	}
	var servers []*http.Server
	var loops sync.WaitGroup
	addresses := make([]net.Addr, 2)
	for i, handler := range []http.Handler{control, proxy} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses[i] = listener.Addr()
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		servers = append(servers, server)
		loops.Go(func() { _ = server.Serve(listener) }) // ends with Close
	}
	fmt.Printf("ready control=%s proxy=%s\n", addresses[0], addresses[1])
	<-ctx.Done()
	for _, server := range servers {
		_ = server.Close()
	}
	loops.Wait()
	d.close()
	return nil
}

// desk is what control acts upon. One request at a time.
type desk struct {
	proxy *proxy
	party *party
}

func (d *desk) close() {
	if d.party != nil {
		d.party.close()
	}
}

func (d *desk) enter(r *http.Request) (any, error) {
	var who guests
	if err := json.NewDecoder(r.Body).Decode(&who); err != nil {
		return nil, err
	}
	if d.party != nil {
		return nil, errors.New("they have entered")
	}
	var err error
	d.party, err = newParty(who)
	return struct{}{}, err
}

func (d *desk) delay(r *http.Request) (any, error) {
	by, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		return nil, err
	}
	return map[string]int64{"requests": d.proxy.slow(r.FormValue("room"), by)}, nil
}

func (d *desk) place(r *http.Request) (any, error) {
	rate, err := strconv.ParseFloat(r.FormValue("rate"), 64)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	legs, err := d.party.place(r.Context(), rate, r.FormValue("room"), r.FormValue("except"))
	return map[string]any{"legs": legs, "seconds": time.Since(began).Seconds()}, err
}

func (d *desk) watch(r *http.Request) (any, error) {
	since, err := strconv.ParseInt(r.FormValue("since"), 10, 64)
	if err != nil {
		return nil, err
	}
	limit, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	return d.party.watch(ctx, time.UnixMilli(since)), nil
}

func (d *desk) hangup(r *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	return struct{}{}, d.party.hangup(ctx)
}
