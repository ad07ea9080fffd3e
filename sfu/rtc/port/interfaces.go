package port

import (
	"path"
	"strings"
)

// inner begins the names of interfaces that containers and virtual machines are behind: nobody outside reaches their addresses.
var inner = []string{
	"docker", "br-", "veth", "podman", "cni", "flannel", "cali", "cilium", "lxc", "lxd", "nerdctl", "virbr", "vnet", "vmnet", "vboxnet", "kube-", "incusbr",
}

// Outer reports whether an interface may lead to clients, by its name: all but those of containers and virtual machines.
func Outer(name string) bool {
	for _, prefix := range inner {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

// Matching is a choice of interfaces: those whose names match one of the globs, or those that Outer names where there are none.
func Matching(globs []string) func(name string) bool {
	if len(globs) == 0 {
		return Outer
	}
	return func(name string) bool {
		for _, g := range globs {
			if ok, err := path.Match(g, name); ok && err == nil {
				return true
			}
		}
		return false
	}
}
