package leave

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A script drives a Book: each step is "<time> <what>", times since the start; what must come of it is told by the
// requests that are made and the jobs that are stored.
type script struct {
	t     *testing.T
	book  *Book
	start time.Time
	disk  map[string]Job // what the changes make of a store
}

func newScript(t *testing.T) *script {
	return &script{t, NewBook(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), map[string]Job{}}
}

func (s *script) at(offset string) time.Time {
	d, err := time.ParseDuration(offset)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.start.Add(d)
}

// the plain identity of the device, the hashed twin that comes first, and somebody else.
const plain, twin, other = "@a:x:D", "H", "@b:x:D"

func (s *script) job(delay string, restarted time.Time) Job {
	return Job{Server: "x", User: "@a:x", Delay: delay, Length: time.Hour, Room: "R", Identities: []string{plain, twin}, Restarted: restarted}
}

// step does one thing and returns the requests that are due then.
func (s *script) step(step string) string {
	words := strings.Fields(step)
	now := s.at(words[0])
	switch what := words[1]; what {
	case "add":
		s.book.Add(s.job(words[2], now), now)
	case "join":
		s.book.Joined(Key{"R", words[2]}, words[3], now)
	case "leave":
		why := map[string]Why{"lost": Lost, "self": ByItself, "shutdown": Shutdown}[words[4]]
		s.book.Left(Key{"R", words[2]}, words[3], why, now)
	case "ok", "gone", "fail", "limited":
		verb := map[string]Verb{"restart": Restart, "send": SendNow, "cancel": Forget}[words[2]]
		r := Result{OK: what == "ok", Gone: what == "gone"}
		if what == "limited" {
			r.After = 7 * time.Second
		}
		s.book.Result(Task{Verb: verb, Server: "x", User: "@a:x", Delay: words[3]}, r, now, now)
	case "tick":
	default:
		s.t.Fatalf("no such step: %s", step)
	}
	var due []string
	for _, task := range s.book.Due(now) {
		due = append(due, task.Verb.String()+" "+task.Delay)
	}
	for _, c := range s.book.Changes() {
		if c.Over {
			delete(s.disk, c.Job.Delay)
		} else {
			s.disk[c.Job.Delay] = c.Job
		}
	}
	return strings.Join(due, ", ")
}

// stored is the fates on disk.
func (s *script) stored() string {
	var all []string
	for delay, j := range s.disk {
		all = append(all, delay+" "+[...]string{"hold", "send", "cancel"}[j.Fate])
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestBook(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []string // "<time> <step> => <requests>"
		disk  string
	}{
		{"waiting: nobody comes", []string{"0s add 1 =>", "89s tick =>", "90s tick => send 1", "91s ok send 1 =>"}, ""},
		{"waiting: the participant comes", []string{"0s add 1 =>", "80s join " + plain + " s =>", "90s tick =>", "47m59s tick =>", "48m tick => restart 1"}, "1 hold"},
		{"the participant was here before", []string{"0s join " + plain + " s =>", "1s add 1 =>", "2m tick =>"}, "1 hold"},
		{"somebody else comes", []string{"0s add 1 =>", "1s join " + other + " s =>", "90s tick => send 1"}, "1 send"},
		{"leaves by itself", []string{"0s add 1 =>", "1s join " + plain + " s =>", "9s leave " + plain + " s self =>", "10s tick =>", "11s tick => send 1", "11s ok send 1 =>"}, ""},
		{"leaves by itself, and its client sent the leave first", []string{"0s add 1 =>", "1s join " + plain + " s =>", "9s leave " + plain + " s self =>", "11s tick => send 1", "11s gone send 1 =>"}, ""},
		{"says goodbye and connects anew", []string{"0s add 1 =>", "1s join " + plain + " s =>", "9s leave " + plain + " s self =>", "10s join " + plain + " s2 =>", "60s tick =>"}, "1 hold"},
		{"lost", []string{"0s add 1 =>", "1s join " + plain + " s =>", "9s leave " + plain + " s lost =>", "11s tick =>", "12s tick => send 1"}, "1 send"},
		{"lost and back", []string{"0s add 1 =>", "1s join " + plain + " s =>", "9s leave " + plain + " s lost =>", "11s join " + plain + " s2 =>", "20s tick =>"}, "1 hold"},
		{"a new session takes the place", []string{"0s add 1 =>", "1s join " + plain + " s =>", "9s join " + plain + " s2 =>", "9s leave " + plain + " s self =>", "60s tick =>"}, "1 hold"},
		{"this server goes", []string{"0s add 1 =>", "1s join " + plain + " s =>", "9s leave " + plain + " s shutdown =>", "47m tick =>"}, "1 hold"},
		{"the twin is here only for a moment", []string{"0s add 1 =>", "1s join " + twin + " t =>", "2s leave " + twin + " t lost =>", "20s join " + plain + " s =>", "90s tick =>"}, "1 hold"},
		{"the twin goes while the other is here", []string{"0s add 1 =>", "1s join " + plain + " s =>", "1s join " + twin + " t =>", "2s leave " + twin + " t self =>", "90s tick =>"}, "1 hold"},
		{"only the twin ever comes", []string{"0s add 1 =>", "1s join " + twin + " t =>", "2m leave " + twin + " t self =>", "2m3s tick => send 1"}, "1 send"},
		{"restart again and again", []string{"0s add 1 =>", "1s join " + plain + " s =>", "48m tick => restart 1", "48m ok restart 1 =>", "95m59s tick =>", "96m tick => restart 1"}, "1 hold"},
		{"restart fails, then not", []string{"0s add 1 =>", "1s join " + plain + " s =>", "48m tick => restart 1", "48m fail restart 1 =>", "48m1s tick => restart 1",
			"48m1s fail restart 1 =>", "48m2s tick =>", "48m2500ms tick => restart 1", "48m3s ok restart 1 =>", "96m2s tick =>", "96m3s tick => restart 1"}, "1 hold"},
		{"restart is limited", []string{"0s add 1 =>", "1s join " + plain + " s =>", "48m tick => restart 1", "48m limited restart 1 =>", "48m6s tick =>", "48m7s tick => restart 1"}, "1 hold"},
		{"restart fails to the deadline", []string{"0s add 1 =>", "1s join " + plain + " s =>", "59m tick => restart 1", "59m1s fail restart 1 =>", "60m tick =>", "61m join " + plain + " s2 =>"}, ""},
		{"the event is gone on restart", []string{"0s add 1 =>", "1s join " + plain + " s =>", "48m tick => restart 1", "48m gone restart 1 =>"}, ""},
		{"left while a restart is on its way", []string{"0s add 1 =>", "1s join " + plain + " s =>", "48m tick => restart 1", "48m leave " + plain + " s self =>", "48m2s ok restart 1 => send 1"}, "1 send"},
		{"left while a restart is on its way, which fails", []string{"0s add 1 =>", "1s join " + plain + " s =>", "48m tick => restart 1", "48m leave " + plain + " s self =>", "48m2s tick =>", "48m3s fail restart 1 => send 1"}, "1 send"},
		{"send fails, then not", []string{"0s add 1 =>", "90s tick => send 1", "90s fail send 1 =>", "91s tick => send 1", "91s limited send 1 =>", "97s tick =>", "98s tick => send 1", "98s ok send 1 =>"}, ""},
		{"send fails for too long", []string{"0s add 1 =>", "90s tick => send 1", "59m fail send 1 =>", "60m59s tick => send 1", "61m fail send 1 =>", "61m2s tick =>"}, ""},
		{"back before the leave could be sent", []string{"0s add 1 =>", "90s tick => send 1", "91s fail send 1 =>", "91s join " + plain + " s =>", "5m tick =>"}, "1 hold"},
		{"back while the leave is on its way, which fails", []string{"0s add 1 =>", "90s tick => send 1", "91s join " + plain + " s =>", "92s fail send 1 =>", "5m tick =>"}, "1 hold"},
		{"back while the leave is on its way", []string{"0s add 1 =>", "90s tick => send 1", "91s join " + plain + " s =>", "92s ok send 1 =>"}, ""},
		{"replaced", []string{"0s add 1 =>", "1s join " + plain + " s =>", "2s add 2 => cancel 1", "3s ok cancel 1 =>", "4s leave " + plain + " s self =>", "6s tick => send 2"}, "2 send"},
		{"replaced while its leave is owed", []string{"0s add 1 =>", "90s tick => send 1", "91s add 2 =>", "92s fail send 1 => cancel 1", "92s gone cancel 1 =>"}, "2 hold"},
		{"replaced while its leave is sent", []string{"0s add 1 =>", "90s tick => send 1", "91s add 2 =>", "92s ok send 1 =>"}, "2 hold"},
		{"cancel fails, then not", []string{"0s add 1 =>", "2s add 2 => cancel 1", "3s fail cancel 1 =>", "4s tick => cancel 1", "4s ok cancel 1 =>"}, "2 hold"},
		{"cancel fails for too long", []string{"0s add 1 =>", "2s add 2 => cancel 1", "3s join " + plain + " s =>", "59m59s fail cancel 1 => restart 2", "60m ok restart 2 => cancel 1", "61m1s fail cancel 1 =>"}, "2 hold"},
		{"the same again", []string{"0s add 1 =>", "1s join " + plain + " s =>", "10m add 1 =>", "57m tick =>", "58m tick => restart 1"}, "1 hold"},
		{"a session that nobody knows", []string{"0s leave " + plain + " s self =>", "1s add 1 =>", "1s ok send 9 =>"}, "1 hold"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			for _, step := range tt.steps {
				do, want, _ := strings.Cut(step, "=>")
				if got := s.step(do); got != strings.TrimSpace(want) {
					t.Fatalf("%q: requests are %q, want %q", do, got, strings.TrimSpace(want))
				}
			}
			if got := s.stored(); got != tt.disk {
				t.Errorf("on disk is %q, want %q", got, tt.disk)
			}
		})
	}
}

// After a restart of this server clients have 30 s to return; what was owed before is owed still.
func TestResume(t *testing.T) {
	s := newScript(t)
	stay, leave, owed, drop := s.job("1", s.start), s.job("2", s.start), s.job("3", s.start), s.job("4", s.start)
	leave.Room, owed.Room, drop.Room = "R2", "R3", "R4"
	owed.Fate, drop.Fate = Send, Cancel
	broken := s.job("5", s.start)
	broken.Identities = nil
	s.book.Resume([]Job{stay, leave, owed, drop, broken}, s.at("10m"))
	for _, step := range []string{"10m tick => cancel 4, send 3", "10m20s join " + plain + " s =>", "10m29s tick =>", "10m30s tick => send 2", "47m tick =>"} {
		do, want, _ := strings.Cut(step, "=>")
		got := strings.Split(s.step(do), ", ")
		slices.Sort(got)
		if strings.Join(got, ", ") != strings.TrimSpace(want) {
			t.Fatalf("%q: requests are %q, want %q", do, got, want)
		}
	}
	if held, owes := s.book.Counts(); held != 1 || owes != 3 {
		t.Errorf("holds %d, owes %d", held, owes)
	}
}

// Next is always when Due has something, or expires something: the loop neither sleeps over it nor spins.
func TestNext(t *testing.T) {
	s := newScript(t)
	if _, any := s.book.Next(); any {
		t.Fatal("an empty book waits for something")
	}
	s.step("0s add 1")
	for _, want := range []struct{ next, step string }{
		{"90s", "1s join " + plain + " s"},
		{"48m", "2s leave " + plain + " s lost"},
		{"5s", "5s tick"},
	} {
		if next, any := s.book.Next(); !any || !next.Equal(s.at(want.next)) {
			t.Errorf("before %q: next is %v, want %s", want.step, next.Sub(s.start), want.next)
		}
		s.step(want.step)
	}
	if next, any := s.book.Next(); any {
		t.Errorf("a request is on its way, and next is %v", next)
	}
}

func TestBackoff(t *testing.T) {
	var got []string
	for n := 1; n <= 13; n++ {
		got = append(got, fmt.Sprint(backoff(n).Round(100*time.Millisecond)))
	}
	want := strings.Fields("1s 1.5s 2.3s 3.4s 5.1s 7.6s 11.4s 17.1s 25.6s 38.4s 57.7s 1m0s 1m0s")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
