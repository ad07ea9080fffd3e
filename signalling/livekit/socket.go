package livekit

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	maxMessage   = 2 << 20 // bytes of one websocket message from a client
	pingInterval = 10 * time.Second
	pingTimeout  = 15 * time.Second // for the pong: a websocket silent for that long is dead
	writeTimeout = 10 * time.Second // for one message to leave: a client that reads slower has to resume
)

// pump carries frames between a websocket and the client's connection to its session until either side ends, and
// closes both. It returns when its goroutines have ended, also by what panics in reading.
func pump(ctx context.Context, ws *websocket.Conn, c conn) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		c.Close()
		cancel()
		wg.Wait()
		_ = ws.CloseNow()
	}()
	wg.Go(func() {
		defer cancel()
		writeLoop(ctx, ws, c)
	})
	wg.Go(func() {
		defer cancel()
		pingLoop(ctx, ws)
	})
	readLoop(ctx, ws, c)
}

func readLoop(ctx context.Context, ws *websocket.Conn, c conn) {
	for {
		kind, data, err := ws.Read(ctx)
		if err != nil {
			return
		}
		if c.Send(ctx, frame{text: kind == websocket.MessageText, data: data}) != nil {
			// The session has ended this connection: what it said last is on its way, and the close handshake
			// needs somebody who reads.
			_ = drain(ctx, ws)
			return
		}
	}
}

// drain reads and forgets until the websocket closes.
func drain(ctx context.Context, ws *websocket.Conn) error {
	for {
		if _, _, err := ws.Read(ctx); err != nil {
			return err
		}
	}
}

func writeLoop(ctx context.Context, ws *websocket.Conn, c conn) {
	for {
		f, err := c.Receive(ctx)
		if errors.Is(err, io.EOF) {
			_ = ws.Close(websocket.StatusNormalClosure, "")
			return
		}
		if err != nil || write(ctx, ws, f) != nil {
			return
		}
	}
}

func write(ctx context.Context, ws *websocket.Conn, f frame) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	kind := websocket.MessageBinary
	if f.text {
		kind = websocket.MessageText
	}
	return ws.Write(ctx, kind, f.data)
}

// pingLoop keeps proxies from closing an idle websocket and ends when the client does not answer.
func pingLoop(ctx context.Context, ws *websocket.Conn) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if ping(ctx, ws) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func ping(ctx context.Context, ws *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return ws.Ping(ctx)
}
