package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is set by the build of a release: -ldflags "-X main.release=1.2.3".
var release = "0.1.0-dev"

// version is the release, with the commit where the build knows it.
func version() string {
	v := release
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += "+" + s.Value[:12]
		}
	}
	return v
}

type versionCmd struct{}

// Run prints version, toolchain and platform on one line.
func (versionCmd) Run(cmd *command) error {
	_, err := fmt.Fprintf(cmd.stdout, "callserver %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
