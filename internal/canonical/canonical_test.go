package canonical

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestString(t *testing.T) {
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
			if got := string(AppendString(nil, c.in)); got != c.want {
				t.Errorf("canonical JSON of %q is %s, want %s", c.in, got, c.want)
			}
		})
	}
}

// The examples of the specification, and what has no canonical form.
func TestValues(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"empty", "{}", "{}"},
		{"order", `{"two": 2, "one": 1}`, `{"one":1,"two":2}`},
		{"nested", `{"auth":{"success":true,"profile":{"display_name":"J","x":{"c":[{"medium":"email"}, 1]}}}}`,
			`{"auth":{"profile":{"display_name":"J","x":{"c":[{"medium":"email"},1]}},"success":true}}`},
		{"code points", `{"本": 2, "日": 1}`, `{"日":1,"本":2}`},
		{"escapes", `{"a": "\u65E5\/<"}`, `{"a":"日/<"}`},
		{"null", `{"a": null}`, `{"a":null}`},
		{"negative zero", `{"a": -0}`, `{"a":0}`},
		{"last of two", `{"a":1,"a":2}`, `{"a":2}`},
		{"largest", `[9007199254740991,-9007199254740991]`, `[9007199254740991,-9007199254740991]`},
		{"too large", `9007199254740992`, ""},
		{"fraction", `[1.5]`, ""},
		{"exponent", `{"a":1e3}`, ""},
		{"two values", `{} {}`, ""},
		{"nothing", ``, ""},
		{"cut short", `{"a":`, ""},
		{"too deep", strings.Repeat("[", 200) + strings.Repeat("]", 200), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, err := Parse([]byte(c.in))
			if (err != nil) != (c.want == "") {
				t.Fatalf("Parse(%q) = %v, %v", c.in, v, err)
			}
			if err == nil && string(Append(nil, v)) != c.want {
				t.Errorf("%s is written as %s, want %s", c.in, Append(nil, v), c.want)
			}
		})
	}
}

// What is written is what any JSON reader reads back, and what is read is written the same way again.
func FuzzCanonical(f *testing.F) {
	f.Add("m.call#ROOM")
	f.Add("\x00\"\\<>&\u2028é")
	f.Add(`{"b":[1,-0,{"":null}],"a":"\\u2028"}`)
	f.Fuzz(func(t *testing.T, s string) {
		text, err := json.Marshal(s) // replaces what is no UTF-8
		if err != nil {
			t.Fatal(err)
		}
		var valid, back string
		if err := json.Unmarshal(text, &valid); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(AppendString(nil, valid), &back); err != nil || back != valid {
			t.Fatalf("%q is written as %s and read as %q (%v)", valid, AppendString(nil, valid), back, err)
		}
		v, err := Parse([]byte(s))
		if err != nil {
			return
		}
		first := Append(nil, v)
		again, err := Parse(first)
		if err != nil || !bytes.Equal(Append(nil, again), first) {
			t.Fatalf("%q is written as %s and then as %s (%v)", s, first, Append(nil, again), err)
		}
	})
}
