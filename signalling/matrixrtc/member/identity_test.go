package member

import (
	"fmt"
	"testing"
)

func TestHashVectors(t *testing.T) {
	cases := []struct {
		parts []string
		want  string
	}{
		{[]string{"!room:example.org", "m.call#ROOM"}, "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E"},
		{[]string{"@alice:example.org", "DEVICEID", "11111111-2222-3333-4444-555555555555"}, "+74UQ6bWCeZst7F0bpqVTShQYxjzhlH6c6jqURfYKok"},
		{[]string{"@alice:example.org", "11111111-2222-3333-4444-555555555555"}, "rDhTXFO6GxWQFP6tQ5qKsuHDaWoChYi6rAfmfqLPAZM"},
		{[]string{"!roomid:example.com", "slot1234"}, "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"},
		{[]string{"@alice:example.com", "memberABC"}, "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs"},
	}
	for _, c := range cases {
		if got := Hash(c.parts...); got != c.want {
			t.Errorf("Hash(%q) = %s, want %s", c.parts, got, c.want)
		}
	}
}

func ExampleRoomName() {
	fmt.Println(RoomName("!room:example.org", "m.call#ROOM"))
	// Output: TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E
}
