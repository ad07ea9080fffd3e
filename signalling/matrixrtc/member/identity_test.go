package member

import (
	"encoding/json"
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

func TestCanonicalString(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"plain", "m.call#ROOM", `"m.call#ROOM"`},
		{"what HTML escapes", "<&>", `"<&>"`},
		{"what JavaScript escapes", "\u2028\u2029", "\"\u2028\u2029\""},
		{"quotes", `a"b\c/d`, `"a\"b\\c/d"`},
		{"short escapes", "\b\t\n\f\r", `"\b\t\n\f\r"`},
		{"other controls", "\x00\x1f\x7f", "\"\\u0000\\u001f\x7f\""},
		{"beyond ASCII", "é🖐️", `"é🖐️"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := string(appendCanonical(nil, c.in)); got != c.want {
				t.Errorf("canonical JSON of %q is %s, want %s", c.in, got, c.want)
			}
		})
	}
}

func ExampleRoomName() {
	fmt.Println(RoomName("!room:example.org", "m.call#ROOM"))
	// Output: TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E
}

// Our canonical JSON is what any JSON reader reads back.
func FuzzCanonicalString(f *testing.F) {
	f.Add("m.call#ROOM")
	f.Add("\x00\"\\<>&\u2028é")
	f.Fuzz(func(t *testing.T, s string) {
		text, err := json.Marshal(s) // replaces what is no UTF-8
		if err != nil {
			t.Fatal(err)
		}
		var valid, back string
		if err := json.Unmarshal(text, &valid); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(appendCanonical(nil, valid), &back); err != nil || back != valid {
			t.Fatalf("%q is written as %s and read as %q (%v)", valid, appendCanonical(nil, valid), back, err)
		}
	})
}
