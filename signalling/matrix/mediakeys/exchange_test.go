package mediakeys

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var zero = time.Unix(1_750_000_000, 0)

// A rig drives an Exchange whose secrets are 1, 2, 3 and so on, and writes down what it wants done.
type rig struct {
	t       *testing.T
	x       *Exchange
	now     time.Time
	secrets byte
	parcel  *Parcel
}

func newRig(t *testing.T, crowd int) *rig {
	r := &rig{t: t, now: zero}
	r.x = New(Options{Self: Peer{"@bot:hs", "BOT"}, Crowd: crowd, Generate: func() (secret [keySize]byte) {
		r.secrets++
		secret[0] = r.secrets
		return secret
	}}, r.now)
	return r
}

// do carries out one step and returns the effects in short: "own 1#2 +1s" is secret 2 under index 1, used a second from now;
// "send 1#2 to a b"; "theirs a 0#9".
func (r *rig) do(step string) string {
	r.t.Helper()
	verb, rest, _ := strings.Cut(step, " ")
	switch verb {
	case "wait":
		d, err := time.ParseDuration(rest)
		if err != nil {
			r.t.Fatal(err)
		}
		r.now = r.now.Add(d)
	case "members": // names, in capitals from the second stay on
		var all []Member
		for _, name := range strings.Fields(rest) {
			m := Member{Peer: peer(strings.ToLower(name)), Created: zero, Identity: "id-" + strings.ToLower(name)}
			if name != strings.ToLower(name) {
				m.Created = zero.Add(time.Hour)
			}
			all = append(all, m)
		}
		r.x.Members(r.now, append(all, Member{Peer: Peer{"@bot:hs", "BOT"}}))
	case "renamed":
		r.x.Members(r.now, []Member{{Peer: peer(rest), Created: zero, Identity: "new-" + rest}})
	case "gets": // name index secret second of its clock
		var name string
		var index, secret, sent int
		if _, err := fmt.Sscan(rest, &name, &index, &secret, &sent); err != nil {
			r.t.Fatal(err)
		}
		r.x.Receive(r.now, Letter{From: peer(name), Sent: zero.Add(time.Duration(sent) * time.Second), Key: Key{uint8(index), []byte{byte(secret)}}})
	case "sent":
		var missed []Peer
		for _, name := range strings.Fields(rest) {
			missed = append(missed, peer(name))
		}
		r.x.Sent(r.now, r.parcel, missed)
	default:
		r.t.Fatalf("no step %q", step)
	}
	return r.effects()
}

func (r *rig) effects() string {
	e := r.x.Take(r.now)
	var parts []string
	for _, k := range e.Theirs {
		parts = append(parts, fmt.Sprintf("theirs %s %d#%d", strings.TrimPrefix(k.Identity, "id-"), k.Index, k.Secret[0]))
	}
	for _, k := range e.Own {
		parts = append(parts, fmt.Sprintf("own %d#%d +%s", k.Index, k.Secret[0], k.From.Sub(r.now)))
	}
	if e.Parcel != nil {
		r.parcel = e.Parcel
		names := make([]string, len(e.Parcel.To))
		for i, p := range e.Parcel.To {
			names[i] = p.Device
		}
		parts = append(parts, fmt.Sprintf("send %d#%d to %s", e.Parcel.Index, e.Parcel.Secret[0], strings.Join(names, " ")))
	}
	return strings.Join(parts, ", ")
}

func peer(name string) Peer { return Peer{"@" + name + ":hs", name} }

func TestExchange(t *testing.T) {
	for _, tc := range []struct {
		name  string
		crowd int
		steps []string // step | effects
	}{
		{"the first key is in use before anybody has it", 0, []string{
			"members a b | own 0#1 +0s, send 0#1 to a b",
			"sent | ",
			"wait 1h | ",
		}},
		{"who comes soon gets the key in use", 0, []string{
			"members a | own 0#1 +0s, send 0#1 to a",
			"sent | ",
			"wait 9s | ",
			"members a b | send 0#1 to b",
			"sent | ",
		}},
		{"who comes later gets a new key, as everybody does", 0, []string{
			"members a | own 0#1 +0s, send 0#1 to a",
			"sent | ",
			"wait 10s | ",
			"members a b | send 1#2 to a b",
			"wait 100ms | ",
			"sent | own 1#2 +1s",
		}},
		{"who leaves does not get the new key", 0, []string{
			"members a b c | own 0#1 +0s, send 0#1 to a b c",
			"sent | ",
			"members a c | send 1#2 to a c",
			"sent | own 1#2 +1s",
		}},
		{"alone again, there is a new key all the same", 0, []string{
			"members a | own 0#1 +0s, send 0#1 to a",
			"sent | ",
			"members | own 1#2 +1s",
			"members b | send 1#2 to b",
			"sent | ",
		}},
		{"leaving and coming back at once is a departure", 0, []string{
			"members a b | own 0#1 +0s, send 0#1 to a b",
			"sent | ",
			"members A b | send 1#2 to a b",
			"sent | own 1#2 +1s",
		}},
		{"what happens while a key is on its way is dealt with after", 0, []string{
			"members a b c | own 0#1 +0s, send 0#1 to a b c",
			"sent | ",
			"members a b | send 1#2 to a b",
			"members a | ",
			"members a d | ",
			"sent | own 1#2 +1s, send 2#3 to a d",
			"sent | own 2#3 +1s",
		}},
		{"a stay that began while a key was on its way gets it anew", 0, []string{
			"members a b | own 0#1 +0s, send 0#1 to a b",
			"members A b | ",
			"sent | send 1#2 to a b",
			"sent | own 1#2 +1s",
		}},
		{"who was not reached is tried again, ever more seldom", 0, []string{
			"members a b | own 0#1 +0s, send 0#1 to a b",
			"sent b | ",
			"wait 999ms | ",
			"wait 1ms | send 0#1 to b",
			"sent b | ",
			"wait 1s | ",
			"wait 1s | send 0#1 to b",
			"sent | ",
			"wait 1m | ",
		}},
		{"one who cannot be reached keeps nobody from the new key", 0, []string{
			"members a b c | own 0#1 +0s, send 0#1 to a b c",
			"sent b | ",
			"members a b | send 1#2 to a b",
			"sent b | own 1#2 +1s",
			"wait 1s | send 1#2 to b",
		}},
		{"a crowd keeps its key", 3, []string{
			"members a b c | own 0#1 +0s, send 0#1 to a b c",
			"sent | ",
			"wait 1m | ",
			"members a b c d | send 0#1 to d",
			"sent | ",
			"members b c d | ",
			"members b c | send 1#2 to b c",
		}},
		{"keys of a member are its participant's", 0, []string{
			"members a | own 0#1 +0s, send 0#1 to a",
			"gets a 0 50 1 | theirs a 0#50",
			"gets a 0 50 1 | ",
			"gets a 1 51 2 | theirs a 1#51",
		}},
		{"an older key does not replace a newer one", 0, []string{
			"members a | own 0#1 +0s, send 0#1 to a",
			"gets a 0 50 5 | theirs a 0#50",
			"gets a 0 51 4 | ",
			"gets a 0 52 6 | theirs a 0#52",
		}},
		{"keys wait for the membership", 0, []string{
			"gets a 0 50 1 | own 0#1 +0s",
			"gets a 1 51 2 | ",
			"wait 9s | ",
			"members a | theirs a 0#50, theirs a 1#51, send 0#1 to a",
		}},
		{"another identity gets the member's keys again", 0, []string{
			"members a | own 0#1 +0s, send 0#1 to a",
			"gets a 3 50 1 | theirs a 3#50",
			"renamed a | theirs new-a 3#50",
		}},
		{"nobody sends us our own", 0, []string{
			"members a | own 0#1 +0s, send 0#1 to a",
			"gets bot 0 9 1 | ",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.crowd)
			for _, line := range tc.steps {
				step, want, _ := strings.Cut(line, " | ")
				if got := r.do(step); got != want {
					t.Fatalf("after %q: got %q, want %q", step, got, want)
				}
			}
		})
	}
}

// TestIndexWraps replaces the key 256 times.
func TestIndexWraps(t *testing.T) {
	r := newRig(t, 0)
	r.do("members a b")
	r.do("sent")
	for range 128 {
		r.do("members a")
		r.do("sent")
		r.do("wait 10s")
		r.do("members a b")
		r.do("sent")
	}
	if r.x.key.Index != 0 {
		t.Errorf("after 256 new keys the index is %d, want 0", r.x.key.Index)
	}
}

func TestDue(t *testing.T) {
	r := newRig(t, 0)
	if due, ok := r.x.Due(); ok {
		t.Errorf("nobody is here, and something is due at %v", due)
	}
	r.do("members a b")
	if _, ok := r.x.Due(); ok {
		t.Error("something is due while a key is on its way")
	}
	r.do("sent b")
	if due, ok := r.x.Due(); !ok || !due.Equal(zero.Add(time.Second)) {
		t.Errorf("due at %v, %v, want in a second", due, ok)
	}
}

// TestParkedIsBounded floods an Exchange with keys of strangers: the newest stay.
func TestParkedIsBounded(t *testing.T) {
	r := newRig(t, 0)
	for i := range 3 * maxParked {
		r.now = r.now.Add(time.Millisecond)
		for index := range 3 * parkedKeys {
			r.x.Receive(r.now, Letter{From: peer(fmt.Sprint("s", i)), Key: Key{Index: uint8(index)}})
		}
	}
	if got := len(r.x.parked); got != maxParked {
		t.Errorf("%d members wait, want %d", got, maxParked)
	}
	last := r.x.parked[peer(fmt.Sprint("s", 3*maxParked-1))]
	if last == nil || len(last.letters) != parkedKeys {
		t.Fatalf("the newest has %+v, want %d keys", last, parkedKeys)
	}
	if newest := slices.MaxFunc(last.letters, func(a, b Letter) int { return int(a.Index) - int(b.Index) }); newest.Index != 3*parkedKeys-1 {
		t.Errorf("the newest key has index %d, want %d", newest.Index, 3*parkedKeys-1)
	}
	r.now = r.now.Add(parkedLife + time.Second)
	r.x.Receive(r.now, Letter{From: peer("late")})
	if got := len(r.x.parked); got != 1 {
		t.Errorf("%d members wait after their time, want 1", got)
	}
}

func TestGeneratedKeysDiffer(t *testing.T) {
	a, b := New(Options{}, zero).Take(zero).Own[0], New(Options{}, zero).Take(zero).Own[0]
	if a.equal(b.Key) || len(a.Secret) != 16 {
		t.Errorf("two first keys are %x and %x", a.Secret, b.Secret)
	}
}
