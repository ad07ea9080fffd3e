// A front is the reverse proxy that an operator runs before a homeserver: it
// sends the MatrixRTC paths to callserver and everything else to the homeserver.
// It owns one plain listener for browsers and one TLS listener for federation,
// the latter under a throw-away authority written to a file.
// It never interprets a request.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "front:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("front", flag.ContinueOnError)
	homeserver := flags.String("homeserver", "", "base `URL` of the homeserver")
	callserver := flags.String("callserver", "", "base `URL` of callserver")
	plain := flags.String("http", "127.0.0.1:0", "`address` of the plain listener")
	secure := flags.String("https", "127.0.0.1:0", "`address` of the TLS listener")
	authority := flags.String("ca", "ca.pem", "`file` that receives the certificate authority")
	handedOn := flags.Bool("handed-on", false, "leave rtc/livekit to the homeserver, which hands it on to callserver itself (MSC4512)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	handler, err := newHandler(*homeserver, *callserver, *handedOn)
	if err != nil {
		return err
	}
	certificate, ca, err := newCertificate(time.Now())
	if err != nil {
		return err
	}
	if err := os.WriteFile(*authority, ca, 0o644); err != nil {
		return err
	}
	return serve(ctx, handler, *plain, *secure, certificate)
}

// newHandler routes by path alone, as the lines for nginx in the operator guide do.
func newHandler(homeserver, callserver string, handedOn bool) (http.Handler, error) {
	toHomeserver, err := proxyTo(homeserver)
	if err != nil {
		return nil, fmt.Errorf("-homeserver: %w", err)
	}
	toCallserver, err := proxyTo(callserver)
	if err != nil {
		return nil, fmt.Errorf("-callserver: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if discovery(r.URL.Path) || !handedOn && tokens(r.URL.Path) {
			toCallserver.ServeHTTP(w, r)
			return
		}
		toHomeserver.ServeHTTP(w, r)
	}), nil
}

// discovery reports whether the path tells clients of callserver: the transports of MSC4143 in their stable and
// unstable place, and the client well-known document.
func discovery(path string) bool {
	switch path {
	case "/_matrix/client/v1/rtc/transports",
		"/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
		"/.well-known/matrix/client":
		return true
	}
	return false
}

// tokens reports whether the path is one where clients and other homeservers get tokens for calls (MSC4195).
func tokens(path string) bool {
	for _, api := range []string{"client", "federation"} {
		if strings.HasPrefix(path, "/_matrix/"+api+"/v1/rtc/livekit/") ||
			strings.HasPrefix(path, "/_matrix/"+api+"/unstable/io.element.msc4195/rtc/livekit/") {
			return true
		}
	}
	return false
}

func proxyTo(base string) (*httputil.ReverseProxy, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	if target.Host == "" {
		return nil, fmt.Errorf("%q is not a base URL", base)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}}, nil
}

// serve runs both listeners until ctx ends or one of them fails, and returns after both stopped.
func serve(ctx context.Context, handler http.Handler, plain, secure string, certificate certificate) error {
	plainListener, err := net.Listen("tcp", plain)
	if err != nil {
		return err
	}
	secureListener, err := net.Listen("tcp", secure)
	if err != nil {
		return errors.Join(err, plainListener.Close())
	}
	servers := []*http.Server{
		{Handler: handler, ReadHeaderTimeout: 10 * time.Second},
		{Handler: handler, ReadHeaderTimeout: 10 * time.Second, TLSConfig: certificate.config()},
	}
	failed := make(chan error, len(servers)) // one result each, so no send blocks
	go func() { failed <- servers[0].Serve(plainListener) }()
	go func() { failed <- servers[1].ServeTLS(secureListener, "", "") }()
	fmt.Printf("ready http=%s https=%s\n", plainListener.Addr(), secureListener.Addr())

	pending := len(servers)
	select {
	case <-ctx.Done():
	case err = <-failed:
		pending--
	}
	for _, server := range servers {
		_ = server.Close() // long polls are open: there is nothing to drain in a testbed
	}
	for range pending {
		_ = <-failed // the other server says ErrServerClosed
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}
