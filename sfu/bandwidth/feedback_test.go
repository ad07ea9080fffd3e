package bandwidth

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"
)

func words(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadFeedback(t *testing.T) {
	const head = "8fcd0005 00000001 00000002 "
	for _, tc := range []struct {
		name, packet string
		want         string // number@time in ms, or number- where missing
		fails        bool
	}{
		{"a run that arrived", head + "ffff0003 00000200 2003 04080c", "65535@129 0@131 1@134", false},
		{"a run that is missing", head + "00070002 00000200 0002", "7- 8-", false},
		{"a bit each", head + "00010004 00000100 a400 0404 00", "1@65 2- 3- 4@66", false},
		{"two bits each", head + "00010003 00000100 d800 04 fffc", "1@65 2@64 3-", false},
		{"several chunks", head + "00010009 00000100 d000 2002 04 0404 00", "1@65 2- 3- 4- 5- 6- 7- 8@66 9@67", false},
		{"nothing", head + "00010000 00000100", "", false},
		{"too short", head + "00010001", "", true},
		{"a chunk is missing", head + "00010009 00000100 d000", "", true},
		{"deltas are missing", head + "00010002 00000100 2002 04", "1@65", true},
		{"half a delta", head + "00010001 00000100 4001 04", "", true},
		{"an empty run", head + "00010001 00000100 2000 04", "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			err := readFeedback(words(t, tc.packet), func(r receipt) {
				if !r.arrived {
					got = append(got, fmt.Sprintf("%d-", r.number))
					return
				}
				got = append(got, fmt.Sprintf("%d@%d", r.number, r.at/time.Millisecond))
			})
			if s := strings.Join(got, " "); s != tc.want || (err != nil) != tc.fails {
				t.Errorf("%q, %v; want %q, an error: %t", s, err, tc.want, tc.fails)
			}
		})
	}
}

// FuzzFeedback reads what anybody may send, as an estimator that has sent something does. What is read must be as many packets as it says.
func FuzzFeedback(f *testing.F) {
	f.Add(words(f, "8fcd0005 00000001 00000002 ffff0003 00000200 2003 04080c"), uint16(3))
	f.Add(words(f, "8fcd0005 00000001 00000002 00010009 00000100 d000 2002 04 0404 00"), uint16(900))
	f.Add(writeFeedback(5, 40, func(n int) (time.Duration, bool) { return time.Hour + time.Duration(n*n)*time.Millisecond, n%3 > 0 }), uint16(60))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		var e Estimator
		now := time.Second
		for range n % 2000 {
			e.Sent.Add(1000, now)
			now += 5 * time.Millisecond
		}
		e.Feedback(b, now)
		e.Feedback(b, now+time.Second)
		if budget, limited := e.Budget(); limited && budget < lowest {
			t.Errorf("a limit of %d", budget)
		}
		visited := 0
		if err := readFeedback(b, func(receipt) { visited++ }); err == nil && visited != int(binary.BigEndian.Uint16(b[14:])) {
			t.Errorf("%d packets of %d", visited, binary.BigEndian.Uint16(b[14:]))
		}
	})
}
