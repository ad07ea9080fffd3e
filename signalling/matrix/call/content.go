package call

import "time"

// What is sent: the contents of events, as the specification names their fields.
type (
	// A Head begins the content of every event of a call.
	Head struct {
		Call    string  `json:"call_id"`
		Party   string  `json:"party_id,omitempty"` // ours; empty in version 0
		Version Version `json:"version"`
	}

	// An Invite is the content of m.call.invite.
	Invite struct {
		Head
		Lifetime     int64        `json:"lifetime"` // milliseconds
		Offer        Description  `json:"offer"`
		Invitee      string       `json:"invitee,omitempty"`
		Capabilities Capabilities `json:"capabilities"`
		Streams      Streams      `json:"sdp_stream_metadata,omitempty"`
	}

	// An Answer is the content of m.call.answer.
	Answer struct {
		Head
		Answer       Description  `json:"answer"`
		Capabilities Capabilities `json:"capabilities"`
		Streams      Streams      `json:"sdp_stream_metadata,omitempty"`
	}

	// A Negotiate is the content of m.call.negotiate.
	Negotiate struct {
		Head
		Lifetime    int64       `json:"lifetime"`
		Description Description `json:"description"`
		Streams     Streams     `json:"sdp_stream_metadata,omitempty"`
	}

	// Candidates is the content of m.call.candidates.
	Candidates struct {
		Head
		Candidates []Candidate `json:"candidates"`
	}

	// A Select is the content of m.call.select_answer.
	Select struct {
		Head
		Selected string `json:"selected_party_id"`
	}

	// A Reject is the content of m.call.reject. The reason is not in the specification; matrix-js-sdk reads it.
	Reject struct {
		Head
		Reason Reason `json:"reason,omitempty"`
	}

	// A Hangup is the content of m.call.hangup.
	Hangup struct {
		Head
		Reason Reason `json:"reason,omitempty"`
	}

	// A StreamsChanged is the content of m.call.sdp_stream_metadata_changed.
	StreamsChanged struct {
		Head
		Streams Streams `json:"sdp_stream_metadata"`
	}

	// An Asserted is the content of m.call.asserted_identity.
	Asserted struct {
		Head
		Identity Identity `json:"asserted_identity"`
	}

	// Capabilities say what else a client can do. We can neither be transferred nor hear tones.
	Capabilities struct {
		Transferee bool `json:"m.call.transferee"`
		DTMF       bool `json:"m.call.dtmf"`
	}
)

func (c *Call) head() Head {
	h := Head{Call: c.o.ID, Party: c.o.Party, Version: c.version}
	if h.Version == 0 {
		h.Party = ""
	}
	return h
}

func (c *Call) send(kind string, content any) {
	c.effects = append(c.effects, Send{Type: kind, Content: content})
}

func (c *Call) sendInvite(sdp string) {
	i := Invite{
		Head: c.head(), Lifetime: c.o.Lifetime.Milliseconds(), Invitee: c.o.Invitee, Streams: c.ours,
		Offer: Description{"offer", sdp},
	}
	c.send(TypeInvite, i)
}

func (c *Call) sendAnswer(sdp string) {
	c.send(TypeAnswer, Answer{Head: c.head(), Answer: Description{"answer", sdp}, Streams: c.ours})
}

func (c *Call) sendNegotiate(kind, sdp string) {
	c.send(TypeNegotiate, Negotiate{
		Head: c.head(), Lifetime: negotiateTime.Milliseconds(), Description: Description{kind, sdp}, Streams: c.ours,
	})
}

// flush sends the candidates that were gathered, and the end of them with the last.
func (c *Call) flush() {
	batch := c.gathered
	if c.final {
		batch = append(batch, Candidate{})
	}
	c.gathered, c.final, c.flushAt = nil, false, time.Time{}
	for len(batch) > 0 {
		n := min(len(batch), maxCandidates)
		c.send(TypeCandidates, Candidates{Head: c.head(), Candidates: batch[:n]})
		batch = batch[n:]
	}
}
