// A registrations program writes the two application service registrations that callserver gives to operators, for a
// homeserver of the testbed: narrow.yaml and wide.yaml in a directory. It never changes what the product writes.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"callserver/signalling/homeserver"
)

func main() {
	server := flag.String("server", "", "`name` of the homeserver")
	url := flag.String("url", "", "base `URL` that receives events")
	proxy := flag.Bool("proxy", false, "have the homeserver hand rtc/livekit on (MSC4512)")
	directory := flag.String("directory", ".", "`directory` for the files")
	flag.Parse()
	narrow := homeserver.NarrowRegistration(*server, *url)
	if *proxy {
		narrow.ProxyPrefix, narrow.ProxyURL = "rtc/livekit", *url
	}
	for name, r := range map[string]*homeserver.Registration{
		"narrow.yaml": narrow,
		"wide.yaml":   homeserver.WideRegistration(*server),
	} {
		if err := write(filepath.Join(*directory, name), r); err != nil {
			fmt.Fprintln(os.Stderr, "registrations:", err)
			os.Exit(1)
		}
	}
}

func write(name string, r *homeserver.Registration) error {
	text, err := r.YAML()
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o600)
}
