//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"callserver/testbed/link"

	"golang.org/x/sys/unix"
)

// outcome is how the command behind the link ended.
type outcome struct {
	status int
	err    error
}

// between makes both sides, plays the script and runs the command behind the link to its end.
func between(ctx context.Context, o options, script link.Script) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server, err := side("link-server", serverAddress, clientAddress)
	if err != nil {
		return 1, err
	}
	client := make(chan *os.File)
	done := make(chan outcome, 1)
	go behind(ctx, o.command, client, done) // ends with the command; done says so
	device, ok := <-client
	if !ok {
		result := <-done
		return result.status, errors.Join(result.err, server.Close())
	}
	l := link.New(device, server, script.Seed)
	var parts sync.WaitGroup
	var linkErr error
	parts.Go(func() { linkErr = l.Run(ctx) })
	if err := errors.Join(l.Play(ctx, script), prepare(ctx, o, l, &parts)); err != nil {
		cancel()
		client <- nil
		parts.Wait()
		return 1, err
	}
	client <- nil // the link carries: go
	result := <-done
	cancel()
	parts.Wait()
	return result.status, errors.Join(result.err, linkErr)
}

// prepare starts what else was asked for: the trace, the control socket and the command on the server's side.
func prepare(ctx context.Context, o options, l *link.Link, parts *sync.WaitGroup) error {
	if o.trace != "" {
		file, err := os.Create(o.trace)
		if err != nil {
			return err
		}
		parts.Go(func() {
			if err := errors.Join(l.Trace(ctx, file), file.Close()); err != nil {
				fmt.Fprintln(os.Stderr, "link:", err)
			}
		})
	}
	if o.control != "" {
		listener, err := net.Listen("unix", o.control)
		if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		context.AfterFunc(ctx, func() { listener.Close() })
		parts.Go(func() { controlLoop(ctx, listener, l) })
	}
	if o.near == "" {
		return nil
	}
	started := make(chan error)
	parts.Go(func() { runNear(ctx, o.near, started) })
	return <-started
}

// runNear runs a shell command on the server's side until ctx ends, with all that it started.
func runNear(ctx context.Context, line string, started chan<- error) {
	runtime.LockOSThread() // never unlocked: Pdeathsig follows the thread
	near := command(ctx, "sh", "-c", line)
	near.Stdin = nil
	near.SysProcAttr.Setpgid = true
	near.Cancel = func() error { return unix.Kill(-near.Process.Pid, unix.SIGKILL) }
	if err := near.Start(); err != nil {
		started <- fmt.Errorf("near command: %w", err)
		return
	}
	started <- nil
	if err := near.Wait(); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "link: near command:", err)
	}
}

// behind makes the client's side in a new namespace, hands its device over, waits for the word and runs the command there. Its
// thread stays locked and ends with it, since it can not go back to the namespace it came from.
func behind(ctx context.Context, parameters []string, client chan *os.File, done chan<- outcome) {
	runtime.LockOSThread()
	device, err := clientSide()
	if err != nil {
		close(client)
		done <- outcome{1, err}
		return
	}
	client <- device
	<-client
	if ctx.Err() != nil {
		done <- outcome{1, ctx.Err()}
		return
	}
	status, err := finish(command(ctx, parameters[0], parameters[1:]...))
	done <- outcome{status, err}
}

// clientSide moves the calling thread into a new namespace whose default route is the link.
func clientSide() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	device, err := side("link-client", clientAddress, serverAddress)
	if err != nil {
		return nil, err
	}
	if err := ip("route", "add", "default", "dev", "link-client"); err != nil {
		return nil, errors.Join(err, device.Close())
	}
	return device, nil
}

// controlLoop takes one script a connection, plays it and answers with the counters so far. One connection at a time.
func controlLoop(ctx context.Context, listener net.Listener, l *link.Link) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		if err := control(ctx, connection, l); err != nil {
			_, _ = fmt.Fprintln(connection, err) // who does not read the answer goes without
		}
		connection.Close()
	}
}

func control(ctx context.Context, connection net.Conn, l *link.Link) error {
	if err := connection.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(connection, 1<<20))
	if err != nil {
		return err
	}
	script, err := link.ParseScript(text)
	if err != nil {
		return err
	}
	if err := l.Play(ctx, script); err != nil {
		return err
	}
	return json.NewEncoder(connection).Encode(l.Stats())
}
