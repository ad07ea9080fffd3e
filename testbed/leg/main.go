// Command leg is a call server for one test: clients of the LiveKit protocol on one side, and on the other remotes of legs, who are brought
// into a room by plain HTTP requests where a bridge would do so by events of another protocol.
//
//	leg serve --config FILE      FILE is a configuration of callserver's in JSON; http, media and keys of it are used
//
//	POST /leg?room=R&identity=I[&encrypted=1&own=HEX][&screens=1]   the remote's offer    {"id", "sdp", "streams"}
//	POST /leg/ID/answer                                             a further offer       {"sdp", "streams"}
//	POST /leg/ID/offer                                                                    {"sdp", "streams"}
//	POST /leg/ID/accept                                             the answer to that
//	POST /leg/ID/candidate                                          a candidate
//	POST /leg/ID/key?identity=I&index=N&key=HEX                     a key of I's
//	POST /leg/ID/leave
//	GET  /leg/ID                                                    {"shown": {...}, "offerWanted", "state"}
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"callserver/sfu"
	"callserver/sfu/rtc"
	"callserver/signalling"
	"callserver/signalling/livekit"
	"callserver/signalling/token"
)

func main() {
	if len(os.Args) != 4 || os.Args[1] != "serve" || os.Args[2] != "--config" {
		fmt.Fprintln(os.Stderr, "usage: leg serve --config FILE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// config is what of a configuration is used.
type config struct {
	HTTP  struct{ Listen string }
	Media struct {
		UDP int `json:"udp_port"`
		TCP int `json:"tcp_port"`
	}
	Keys token.Keys
}

func run(ctx context.Context, file string) error {
	var c config
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	engine, err := rtc.New(rtc.Options{Logger: log, UDPPort: c.Media.UDP, TCPPort: c.Media.TCP, Loopback: true})
	if err != nil {
		return err
	}
	calls := signalling.New(signalling.Options{Rooms: sfu.New(sfu.Options{AutoCreate: true}), Engine: engine, Logger: log})
	edge := livekit.New(livekit.Options{Server: calls, Keys: c.Keys})
	d := &desk{calls: calls, legs: map[string]*leg{}}
	mux := http.NewServeMux()
	mux.Handle("/", edge)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /leg", d.join)
	mux.HandleFunc("POST /leg/{id}/{what}", d.act)
	mux.HandleFunc("GET /leg/{id}", d.state)
	server := &http.Server{Addr: c.HTTP.Listen, Handler: anywhere(mux), ReadHeaderTimeout: 10 * time.Second}
	var loops sync.WaitGroup
	loops.Go(func() { _ = calls.Run(ctx) })
	loops.Go(func() {
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = edge.Close(late)
		_ = server.Close()
	})
	err = server.ListenAndServe()
	loops.Wait()
	d.close()
	if closed := engine.Close(); closed != nil {
		return closed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// anywhere lets pages of every origin in.
func anywhere(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		h.ServeHTTP(w, r)
	})
}

// desk has the legs of the test.
type desk struct {
	calls *signalling.Server

	mu   sync.Mutex
	legs map[string]*leg
}

// leg is a leg with what it has told so far.
type leg struct {
	*signalling.Leg
	Shown       map[string]signalling.Shown `json:"shown"`
	OfferWanted bool                        `json:"offerWanted"`
	State       string                      `json:"state"`
}

func (d *desk) join(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	grant := token.Join(q.Get("room"), q.Get("identity"))
	joined, err := d.calls.JoinLeg(r.Context(), grant, signalling.LegOptions{Encrypted: q.Get("encrypted") != "", Screens: q.Get("screens") != ""})
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	l := &leg{Leg: joined, Shown: map[string]signalling.Shown{}}
	if q.Get("own") != "" {
		key, err := hex.DecodeString(q.Get("own"))
		if err == nil {
			err = l.SetOwnKey(0, key)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	d.mu.Lock()
	d.legs[string(l.SID())] = l
	d.mu.Unlock()
	description, err := l.Answer(r.Context(), body(r))
	reply(w, map[string]any{"id": l.SID(), "sdp": description.SDP, "streams": description.Streams}, err)
}

func body(r *http.Request) string {
	text, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	return string(text)
}

func reply(w http.ResponseWriter, value any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func (d *desk) find(w http.ResponseWriter, r *http.Request) *leg {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.legs[r.PathValue("id")]
	if l == nil {
		http.Error(w, "no such leg", http.StatusNotFound)
	}
	return l
}

func (d *desk) act(w http.ResponseWriter, r *http.Request) {
	l := d.find(w, r)
	if l == nil {
		return
	}
	q := r.URL.Query()
	var err error
	var description signalling.LegDescription
	switch r.PathValue("what") {
	case "answer":
		description, err = l.Answer(r.Context(), body(r))
	case "offer":
		description, err = l.Offer(r.Context())
		d.mu.Lock()
		l.OfferWanted = false
		d.mu.Unlock()
	case "accept":
		err = l.Accept(body(r))
	case "candidate":
		l.Candidate(body(r))
	case "key":
		var key []byte
		var index int
		if key, err = hex.DecodeString(q.Get("key")); err == nil {
			if index, err = strconv.Atoi(q.Get("index")); err == nil {
				err = l.SetKey(sfu.Identity(q.Get("identity")), uint8(index), key)
			}
		}
	case "leave":
		l.Leave(sfu.ClientInitiated)
	default:
		err = fmt.Errorf("nothing to do by that name")
	}
	reply(w, map[string]any{"sdp": description.SDP, "streams": description.Streams}, err)
}

func (d *desk) state(w http.ResponseWriter, r *http.Request) {
	l := d.find(w, r)
	if l == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range l.Events() {
		switch e := e.(type) {
		case signalling.Shown:
			l.Shown[map[sfu.TrackSource]string{sfu.Microphone: "microphone", sfu.Camera: "camera", sfu.ScreenShare: "screen_share"}[e.Source]] = e
		case signalling.OfferWanted:
			l.OfferWanted = true
		case signalling.Connected, signalling.Interrupted, signalling.TransportFailed, signalling.Broken, sfu.Closed:
			l.State = fmt.Sprintf("%T", e)
		}
	}
	reply(w, l, nil)
}

func (d *desk) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.legs {
		l.Leave(sfu.ServerShutdown)
	}
}
