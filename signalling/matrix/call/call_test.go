package call

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	alice = "@alice:example.org" // in whose name we speak
	bob   = "@bob:example.org"   // at the other end
	ours  = "ours"
)

var start = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// A script drives a call by words, and says in words what came of it.
type script struct {
	*Call
	now    time.Time
	events int
}

// heard makes a message of words: the type, then party=, by=, sdp=, and so on.
func (s *script) heard(words []string) string {
	s.events++
	m := Message{Type: "m.call." + words[0], Event: fmt.Sprint("$", s.events), Sender: bob, Call: "call", Party: "B1", Version: 1, Lifetime: time.Minute}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "party":
			m.Party = value
		case "by":
			m.Sender = value
		case "call":
			m.Call = value
		case "event":
			m.Event = value
		case "v0":
			m.Version, m.Party = 0, ""
		case "offer", "answer":
			m.Description = Description{key, value}
		case "select":
			m.Selected = value
		case "reason":
			m.Reason = Reason(value)
		case "candidate":
			m.Candidates = append(m.Candidates, Candidate{Candidate: value})
		case "stream":
			m.Streams = Streams{value: {Purpose: UserMedia}}
		case "muted":
			m.Streams = Streams{value: {Purpose: UserMedia, AudioMuted: true}}
		case "age":
			m.Age, _ = time.ParseDuration(value)
		}
	}
	if !s.Heard(m, s.now) {
		return "ignored"
	}
	return ""
}

func (s *script) step(t *testing.T, text string) (said string) {
	words := strings.Fields(text)
	switch words[0] {
	case "accept":
		s.Accept(s.now)
	case "described":
		kind, sdp, _ := strings.Cut(words[1], "=")
		s.Described(Description{kind, sdp}, Streams{"S": {Purpose: UserMedia}}, s.now)
	case "gathered":
		s.Gathered([]Candidate{{Candidate: words[1]}}, len(words) > 2, s.now)
	case "connected":
		s.Connected(s.now)
	case "lost":
		s.Lost(s.now)
	case "mute":
		s.Changed(Streams{"S": {Purpose: UserMedia, AudioMuted: true}})
	case "assert":
		s.Assert(Identity{ID: words[1]})
	case "drop":
		s.Drop(InviteTimeout)
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		for end := s.now.Add(d); ; {
			next := s.Next()
			if next.IsZero() || next.After(end) {
				s.now = end
				break
			}
			s.now = next
			s.Tick(s.now)
			if again := s.Next(); again.Equal(next) {
				t.Fatalf("a timer at %s does not go away", next)
			}
		}
	default:
		said = s.heard(words)
	}
	var effects []string
	if said != "" {
		effects = append(effects, said)
	}
	for _, e := range s.Effects() {
		effects = append(effects, inWords(e))
	}
	return strings.Join(effects, ", ")
}

// inWords says in short what an effect is.
func inWords(e Effect) string {
	switch e := e.(type) {
	case Send:
		kind := strings.TrimPrefix(e.Type, "m.call.")
		switch c := e.Content.(type) {
		case Invite:
			return "send invite=" + c.Offer.SDP
		case Answer:
			return "send answer=" + c.Answer.SDP
		case Negotiate:
			return "send negotiate " + c.Description.Type + "=" + c.Description.SDP
		case Select:
			return "send select=" + c.Selected
		case Hangup:
			return fmt.Sprintf("send hangup=%s v%d", c.Reason, c.Version)
		case Reject:
			return strings.TrimSuffix("send reject="+string(c.Reason), "=")
		case Candidates:
			var all []string
			for _, x := range c.Candidates {
				all = append(all, x.Candidate)
			}
			return "send candidates=" + strings.Join(all, "+")
		}
		return "send " + kind
	case TakeOffer:
		if e.Again {
			return "new offer " + e.SDP
		}
		return "offer " + e.SDP
	case TakeAnswer:
		return "answer " + e.SDP
	case TakeCandidates:
		return fmt.Sprint(len(e.Candidates), " candidates")
	case TakeStreams:
		for id, s := range e.Streams {
			if s.AudioMuted {
				return "stream " + id + " muted"
			}
			return "stream " + id
		}
	case Rollback:
		return "rollback"
	case Over:
		if e.Ours {
			return "over " + string(e.Reason)
		}
		return "over by them " + string(e.Reason)
	}
	return fmt.Sprintf("%T", e)
}

// Where a script starts.
func incoming(t *testing.T, version Version, lifetime, age time.Duration) *script {
	t.Helper()
	m := Message{Type: TypeInvite, Event: "$invite", Sender: bob, Call: "call", Party: "B1", Version: version, Lifetime: lifetime, Age: age, Description: Description{"offer", "o1"}}
	if version == 0 {
		m.Party = ""
	}
	c, err := Incoming(m, Options{Party: ours, Self: alice}, start)
	if err != nil {
		t.Fatal(err)
	}
	return &script{Call: c, now: start}
}

func outgoing(*testing.T) *script {
	return &script{Call: Outgoing(Options{ID: "call", Party: ours, Self: alice, Peer: bob, Invitee: bob}, start), now: start}
}

// In a step, what stands behind "->" is what must come of it.
var transitions = []struct {
	name  string
	begin func(*testing.T) *script
	steps []string
	ends  State
}{
	{"callee: answered and up", called, []string{
		"accept -> offer o1", "described answer=a1 -> send answer=a1", "select_answer select=ours ->", "connected ->", "wait 1h ->",
	}, Up},
	{"callee: they hang up", calledUp, []string{"hangup -> over by them user_hangup"}, Ended},
	{"callee: they hang up with a reason", calledUp, []string{"hangup reason=ice_failed -> over by them ice_failed"}, Ended},
	{"callee: the caller gives up while it rings", called, []string{"hangup reason=invite_timeout -> over by them invite_timeout", "accept ->"}, Ended},
	{"callee: another party of the caller hangs up", called, []string{"hangup party=B2 -> ignored", "hangup by=@eve:example.org -> ignored"}, Invited},
	{"callee: nobody accepts", called, []string{"wait 60s -> over invite_timeout", "wait 1h ->"}, Ended},
	{"callee: no answer is made", called, []string{"accept -> offer o1", "wait 10s -> send reject=user_media_failed, over user_media_failed"}, Ended},
	{"callee: answered on another device", called, []string{"answer by=@alice:example.org party=A2 answer=x -> over by them answered_elsewhere"}, Ended},
	{"callee: rejected on another device", called, []string{"reject by=@alice:example.org party=A2 -> over by them rejected_elsewhere"}, Ended},
	{"callee: v0 rejected on another device", called, []string{"hangup by=@alice:example.org v0 -> over by them rejected_elsewhere"}, Ended},
	{"callee: our own events come back", called, []string{"answer by=@alice:example.org party=ours answer=x -> ignored", "candidates by=@alice:example.org party=A2 -> ignored"}, Invited},
	{"callee: another device was selected", called, []string{
		"accept -> offer o1", "described answer=a1 -> send answer=a1", "answer by=@alice:example.org party=A2 answer=x -> ignored",
		"select_answer select=A2 -> over by them answered_elsewhere",
	}, Ended},
	{"callee: another was selected before we answered", called, []string{"accept -> offer o1", "select_answer select=A2 -> over by them answered_elsewhere", "described answer=a1 ->"}, Ended},
	{"callee: selected by another party", called, []string{"accept -> offer o1", "described answer=a1 -> send answer=a1", "select_answer party=B2 select=A2 -> ignored"}, Connecting},
	{"callee: selected before we answered is out of turn", called, []string{"select_answer select=ours -> ignored"}, Invited},
	{"callee: never selected", called, []string{"accept -> offer o1", "described answer=a1 -> send answer=a1", "wait 10s -> send hangup=ice_timeout v1, over ice_timeout"}, Ended},
	{"callee: not selected, but media flows", called, []string{"accept -> offer o1", "described answer=a1 -> send answer=a1", "connected ->", "wait 1m ->"}, Up},
	{"callee: selected, no media", called, []string{
		"accept -> offer o1", "described answer=a1 -> send answer=a1", "select_answer select=ours ->", "select_answer select=A2 -> ignored",
		"wait 30s -> send hangup=ice_timeout v1, over ice_timeout",
	}, Ended},
	{"callee: candidates before and after", called, []string{
		"candidates candidate=c1 candidate=c2 ->", "candidates party=B2 candidate=c3 -> ignored", "accept -> offer o1, 2 candidates", "candidates candidate=c4 -> 1 candidates",
		"described answer=a1 -> send answer=a1", "candidates candidate=c5 -> 1 candidates", "candidates ->",
	}, Connecting},
	{"callee: our candidates go in batches", called, []string{
		"accept -> offer o1", "gathered x1 ->", "described answer=a1 -> send answer=a1", "gathered x2 ->", "wait 499ms ->", "wait 1ms -> send candidates=x1+x2",
		"gathered x3 final ->", "wait 500ms -> send candidates=x3+",
	}, Connecting},
	{"callee: an event twice", called, []string{"accept -> offer o1", "candidates event=$c candidate=c1 -> 1 candidates", "candidates event=$c candidate=c1 -> ignored"}, Answering},
	{"callee: the invitation twice", called, []string{"invite event=$invite -> ignored", "invite offer=other -> ignored"}, Invited},
	{"callee: answers and rejections of the caller mean nothing", called, []string{"answer answer=x -> ignored", "reject -> ignored", "negotiate offer=o -> ignored"}, Invited},

	{"callee v0: answered", calledV0, []string{
		"accept -> offer o1", "candidates v0 candidate=c1 -> 1 candidates", "described answer=a1 -> send answer=a1", "wait 20s ->", "connected ->",
		"mute ->", "assert @bob:example.org ->", "negotiate v0 offer=o2 -> ignored", "described offer=o3 -> rollback", "hangup v0 -> over by them user_hangup",
	}, Ended},

	{"both: negotiated by them", calledUp, []string{
		"negotiate offer=o2 stream=T -> stream T, new offer o2", "described answer=a2 -> send negotiate answer=a2", "described answer=a3 ->", "negotiate answer=x -> ignored",
	}, Up},
	{"both: negotiated by us", calledUp, []string{
		"described offer=o2 -> send negotiate offer=o2", "described offer=o3 -> rollback", "negotiate answer=a2 -> answer a2", "negotiate answer=a2 -> ignored",
	}, Up},
	{"both: our offer is never answered", calledUp, []string{"described offer=o2 -> send negotiate offer=o2", "wait 30s -> rollback", "negotiate answer=a2 -> ignored"}, Up},
	{"both: an offer while theirs is being answered", calledUp, []string{
		"negotiate offer=o2 -> new offer o2", "negotiate offer=o3 ->", "negotiate offer=o4 ->", "described offer=x -> rollback",
		"described answer=a2 -> send negotiate answer=a2, new offer o4", "described answer=a4 -> send negotiate answer=a4",
	}, Up},
	{"both: a negotiation that is over", calledUp, []string{"negotiate offer=o2 age=61s -> ignored"}, Up},
	{"both: negotiated by a stranger", calledUp, []string{"negotiate party=B2 offer=o2 -> ignored", "negotiate by=@eve:example.org offer=o2 -> ignored", "negotiate by=@alice:example.org party=A2 offer=o2 -> ignored"}, Up},
	{"callee is polite: offers cross", calledUp, []string{
		"described offer=o2 -> send negotiate offer=o2", "negotiate offer=o3 -> rollback, new offer o3", "negotiate answer=x -> ignored", "described answer=a3 -> send negotiate answer=a3",
	}, Up},
	{"caller is not: offers cross", callingUp, []string{
		"described offer=o2 -> send negotiate offer=o2", "negotiate offer=o3 -> ignored", "negotiate answer=a2 -> answer a2", "negotiate offer=o4 -> new offer o4",
	}, Up},
	{"both: ICE anew while media is lost", calledUp, []string{"lost ->", "wait 29s ->", "negotiate offer=o2 -> new offer o2", "described answer=a2 -> send negotiate answer=a2", "connected ->", "wait 1h ->"}, Up},
	{"both: media stays lost", calledUp, []string{"lost ->", "wait 10s ->", "lost ->", "wait 20s -> send hangup=ice_failed v1, over ice_failed"}, Ended},
	{"both: muted", calledUp, []string{"sdp_stream_metadata_changed muted=T -> stream T muted", "sdp_stream_metadata_changed -> ignored", "sdp_stream_metadata_changed party=B2 stream=T -> ignored", "mute -> send sdp_stream_metadata_changed", "mute ->"}, Up},
	{"both: who is on the line", calledUp, []string{"assert @bob:example.org -> send asserted_identity", "asserted_identity -> ignored", "replaces -> ignored"}, Up},
	{"callee: muted before it is answered", called, []string{"sdp_stream_metadata_changed muted=T -> stream T muted"}, Invited},
	{"of another call", calledUp, []string{"hangup call=other -> ignored"}, Up},

	{"caller: answered", outgoing, []string{
		"gathered x1 ->", "described offer=o1 -> send invite=o1", "candidates party=B2 candidate=c1 ->", "candidates party=B1 candidate=c2 candidate=c3 ->",
		"answer party=B1 answer=a1 stream=T -> send candidates=x1, send select=B1, stream T, answer a1, 2 candidates", "answer party=B2 answer=a2 -> ignored",
		"candidates party=B2 candidate=c4 -> ignored", "candidates candidate=c5 -> 1 candidates", "hangup party=B2 -> ignored", "reject party=B2 -> ignored",
		"select_answer select=ours -> ignored", "connected ->", "wait 1h ->",
	}, Up},
	{"caller: our candidates", outgoing, []string{"described offer=o1 -> send invite=o1", "gathered x1 ->", "gathered x2 ->", "wait 1999ms ->", "wait 1ms -> send candidates=x1+x2"}, Ringing},
	{"caller: rejected", outgoing, []string{"described offer=o1 -> send invite=o1", "reject party=B2 -> over by them rejected"}, Ended},
	{"caller: busy", outgoing, []string{"described offer=o1 -> send invite=o1", "hangup party=B2 reason=user_busy -> over by them user_busy"}, Ended},
	{"caller: rejected by a stranger", outgoing, []string{"described offer=o1 -> send invite=o1", "reject by=@eve:example.org -> ignored", "answer by=@alice:example.org party=A2 answer=a -> ignored"}, Ringing},
	{"caller: nobody answers", outgoing, []string{"described offer=o1 -> send invite=o1", "wait 60s -> send hangup=invite_timeout v1, over invite_timeout"}, Ended},
	{"caller: no offer is made", outgoing, []string{"wait 10s -> over user_media_failed"}, Ended},
	{"caller: answered before it called", outgoing, []string{"answer answer=a1 -> ignored", "candidates candidate=c -> ignored", "negotiate offer=o -> ignored"}, Placing},
	{"caller: answered by version 0", outgoing, []string{
		"described offer=o1 -> send invite=o1", "candidates v0 candidate=c1 ->", "answer v0 answer=a1 -> answer a1, 1 candidates", "candidates v0 candidate=c2 -> 1 candidates",
		"connected ->", "described offer=o2 -> rollback", "hangup v0 -> over by them user_hangup",
	}, Ended},
	{"caller: answered, no media", outgoing, []string{"described offer=o1 -> send invite=o1", "answer answer=a1 -> send select=B1, answer a1", "wait 30s -> send hangup=ice_timeout v1, over ice_timeout"}, Ended},
}

func called(t *testing.T) *script   { return incoming(t, 1, time.Minute, 0) }
func calledV0(t *testing.T) *script { return incoming(t, 0, time.Minute, 0) }

func calledUp(t *testing.T) *script {
	s := called(t)
	for _, step := range []string{"accept", "described answer=a1", "select_answer select=ours", "connected", "wait 2s"} {
		s.step(t, step)
	}
	return s
}

func callingUp(t *testing.T) *script {
	s := outgoing(t)
	for _, step := range []string{"described offer=o1", "answer answer=a1", "connected", "wait 3s"} {
		s.step(t, step)
	}
	return s
}

func TestTransitions(t *testing.T) {
	for _, tc := range transitions {
		t.Run(tc.name, func(t *testing.T) {
			s := tc.begin(t)
			s.Effects()
			for _, line := range tc.steps {
				text, want, checked := strings.Cut(line, "->")
				if got := s.step(t, text); checked && got != strings.TrimSpace(want) {
					t.Fatalf("%q: got %q, want %q", text, got, strings.TrimSpace(want))
				}
			}
			if s.State() != tc.ends {
				t.Errorf("state %d, want %d", s.State(), tc.ends)
			}
			if s.State() == Ended && !s.Next().IsZero() {
				t.Error("a call that has ended waits for something")
			}
		})
	}
}

// What ends a call by our will, in every state and both versions.
func TestHangup(t *testing.T) {
	for _, tc := range []struct {
		name  string
		begin func(*testing.T) *script
		steps []string
		want  string
	}{
		{"invited", called, nil, "send reject, over user_hangup"},
		{"invited by version 0", calledV0, nil, "send hangup=user_hangup v0, over user_hangup"},
		{"answering", called, []string{"accept"}, "send reject, over user_hangup"},
		{"connecting", called, []string{"accept", "described answer=a1"}, "send hangup=user_hangup v1, over user_hangup"},
		{"up", calledUp, nil, "send hangup=user_hangup v1, over user_hangup"},
		{"up with version 0", calledV0, []string{"accept", "described answer=a1", "connected"}, "send hangup=user_hangup v0, over user_hangup"},
		{"placing", outgoing, nil, "over user_hangup"},
		{"ringing", outgoing, []string{"described offer=o1"}, "send hangup=user_hangup v1, over user_hangup"},
		{"ended", called, []string{"hangup"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := tc.begin(t)
			for _, step := range tc.steps {
				s.step(t, step)
			}
			s.Effects()
			s.Hangup(UserHangup)
			var got []string
			for _, e := range s.Effects() {
				got = append(got, inWords(e))
			}
			if text := strings.Join(got, ", "); text != tc.want {
				t.Errorf("got %q, want %q", text, tc.want)
			}
		})
	}
}

func TestIncoming(t *testing.T) {
	for _, tc := range []struct {
		name          string
		sender        string
		invitee       string
		lifetime, age time.Duration
		want          error
	}{
		{"for everybody", bob, "", time.Minute, 0, nil},
		{"for us", bob, alice, time.Minute, 56 * time.Second, nil},
		{"for somebody else", bob, "@carol:example.org", time.Minute, 0, ErrNotMeant},
		{"our own", alice, "", time.Minute, 0, ErrNotMeant},
		{"too old", bob, "", time.Minute, 57*time.Second + 1, ErrStale},
		{"without a life", bob, "", 0, 0, ErrStale},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := Message{Type: TypeInvite, Sender: tc.sender, Invitee: tc.invitee, Lifetime: tc.lifetime, Age: tc.age, Call: "c", Party: "p", Version: 1}
			if _, err := Incoming(m, Options{Party: ours, Self: alice}, start); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// The parties that may answer, and what they send before, are bounded.
func TestBounds(t *testing.T) {
	s := outgoing(t)
	s.step(t, "described offer=o1")
	for i := range maxParties + 4 {
		got := s.step(t, fmt.Sprintf("candidates party=P%d candidate=c", i))
		if want := i >= maxParties; (got == "ignored") != want {
			t.Errorf("party %d: %q", i, got)
		}
	}
	many := strings.Repeat(" candidate=c", 70)
	for range 3 {
		s.step(t, "candidates party=P1"+many)
	}
	if got, want := s.step(t, "answer party=P1 answer=a1"), fmt.Sprintf("send select=P1, answer a1, %d candidates", maxCandidates); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for i := range 2 * maxSeen {
		s.step(t, fmt.Sprintf("candidates event=$%d party=P1", i))
	}
	if len(s.seen) != maxSeen {
		t.Errorf("%d events are remembered, want %d", len(s.seen), maxSeen)
	}
}

// The contents as the specification spells them.
func TestContents(t *testing.T) {
	s := outgoing(t)
	s.Described(Description{"offer", "o1"}, Streams{"S": {Purpose: UserMedia, VideoMuted: true}}, start)
	line := uint16(0)
	s.Gathered([]Candidate{{Candidate: "candidate:1", Line: &line}}, true, start)
	s.Tick(start.Add(inviteBatch))
	v0 := calledV0(t)
	v0.Accept(start)
	v0.Described(Description{"answer", "a1"}, nil, start)
	for _, tc := range []struct {
		name, want string
		content    any
	}{
		{"invite", `{"call_id":"call","party_id":"ours","version":"1","lifetime":60000,"offer":{"type":"offer","sdp":"o1"},"invitee":"@bob:example.org","capabilities":{"m.call.transferee":false,"m.call.dtmf":false},"sdp_stream_metadata":{"S":{"purpose":"m.usermedia","audio_muted":false,"video_muted":true}}}`, nil},
		{"candidates", `{"call_id":"call","party_id":"ours","version":"1","candidates":[{"candidate":"candidate:1","sdpMLineIndex":0},{"candidate":""}]}`, nil},
		{"answer of version 0", `{"call_id":"call","version":0,"answer":{"type":"answer","sdp":"a1"},"capabilities":{"m.call.transferee":false,"m.call.dtmf":false}}`, v0.Effects()[1].(Send).Content},
		{"hangup", `{"call_id":"c","party_id":"p","version":"1","reason":"user_busy"}`, Hangup{Head{"c", "p", 1}, UserBusy}},
		{"select_answer", `{"call_id":"c","party_id":"p","version":"1","selected_party_id":"q"}`, Select{Head{"c", "p", 1}, "q"}},
		{"asserted_identity", `{"call_id":"c","party_id":"p","version":"1","asserted_identity":{"id":"@a:b","display_name":"A"}}`, Asserted{Head{"c", "p", 1}, Identity{ID: "@a:b", DisplayName: "A"}}},
	} {
		if tc.content == nil {
			tc.content = s.effects[0].(Send).Content
			s.effects = s.effects[1:]
		}
		got, err := json.Marshal(tc.content)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: got %s (%v), want %s", tc.name, got, err, tc.want)
		}
	}
}
