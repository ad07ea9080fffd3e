package link

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"
)

// A line every tenth of a second, with what happened in it.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := newDevice(), newDevice()
		l := New(client, server, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		var trace bytes.Buffer
		go func() { ended <- l.Run(ctx) }()
		if err := l.Play(ctx, Script{Steps: []Step{{Direction: Down, Conditions: Conditions{Rate: 80_000}}}}); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- l.Trace(ctx, &trace) }()
		time.Sleep(150 * time.Millisecond)
		for range 2 {
			if _, ok := took(server, client); !ok {
				t.Fatal("a packet did not come")
			}
		}
		time.Sleep(200 * time.Millisecond)
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		var queues []float64
		var last traceLine
		for decoder := json.NewDecoder(&trace); decoder.More(); {
			if err := decoder.Decode(&last); err != nil {
				t.Fatal(err)
			}
			queues = append(queues, last.Down.Queue)
		}
		if len(queues) != 3 || queues[0] != 0 || queues[1] != 10 || queues[2] != 0 {
			t.Errorf("queues of %v ms, want 10 in the second of three lines", queues)
		}
		if last.Down.Delivered != 2 || last.Down.Bytes != 200 || last.Up.Sent != 0 {
			t.Errorf("counted %+v", last)
		}
	})
}
