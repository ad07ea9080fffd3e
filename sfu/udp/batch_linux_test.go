//go:build linux && (amd64 || arm64)

package udp

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestUnsegmented has segmented runs fail as they do on cards that claim to split them: they are sent again at once, and from then on one by one,
// to this destination only.
func TestUnsegmented(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL} {
		t.Run(errno.Error(), func(t *testing.T) {
			from, to, other := listen(t, loopback, Options{}), listen(t, loopback, Options{}), listen(t, loopback, Options{})
			if !from.Segments() {
				t.Skip("this kernel splits no runs (before 4.18)")
			}
			bad, good := NewDestination(addrOf(to)), NewDestination(addrOf(other))
			refused := 0
			from.fast.sendmmsg = func(fd uintptr, messages []message) (int, unix.Errno) {
				for i := range messages {
					h := &messages[i].header
					if h.Iovlen > 1 && h.Name == (*byte)(unsafe.Pointer(&bad.name.four)) {
						if i == 0 {
							refused++
							return 0, errno
						}
						return sendmmsg(fd, messages[:i])
					}
				}
				return sendmmsg(fd, messages)
			}
			o := from.NewOutbox()
			want := datagrams(50, 50, 50, 20)
			for range 2 {
				for _, d := range []*Destination{good, bad, good} {
					for _, b := range want {
						o.Add(d, b)
					}
				}
				o.Flush()
				got, _ := receive(t, to, len(want))
				for i := range want {
					if string(got[i]) != string(want[i]) {
						t.Errorf("datagram %d is %d bytes, want %d", i, len(got[i]), len(want[i]))
					}
				}
				receive(t, other, 2*len(want))
			}
			if s := from.Stats(); refused != 1 || s.Unsegmented != 1 || s.Lost != 0 {
				t.Errorf("refused %d times, want once; %+v", refused, s)
			}
		})
	}
}

// TestRefused loses what the kernel does not take, and only that.
func TestRefused(t *testing.T) {
	from, to := listen(t, loopback, Options{}), listen(t, loopback, Options{})
	n := 0
	from.fast.sendmmsg = func(fd uintptr, messages []message) (int, unix.Errno) {
		n++
		switch n {
		case 1:
			return 0, unix.EINTR
		case 2:
			return 0, unix.EPERM
		}
		return sendmmsg(fd, messages)
	}
	o := from.NewOutbox()
	d := NewDestination(addrOf(to))
	for _, b := range datagrams(10, 20, 30) { // three runs
		o.Add(d, b)
	}
	o.Flush()
	got, _ := receive(t, to, 2)
	if s := from.Stats(); len(got[0]) != 20 || s.Lost != 1 || s.Sent != 2 {
		t.Errorf("first is of %d bytes, %+v", len(got[0]), s)
	}
}
