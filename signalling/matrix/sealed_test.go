package matrix

import "testing"

// TestNothingOpenInEncryptedRooms gives a command that anybody can read, in an encrypted room, to a bot without keys.
func TestNothingOpenInEncryptedRooms(t *testing.T) {
	w := newWorld(t, true, nil)
	w.isIn(t, alice)
	w.matrix.set(func() { w.matrix.encrypted = true })
	w.push(t, w.text(room, bob, "!call help"))
	eventually(t, "the answer is given up", func() bool { return w.Stats().Failures == 1 })
	w.push(t, w.text(room, alice, "!call ring @bob:example.org"))
	eventually(t, "the ring, and the answer to it, too", func() bool { return w.Stats().Failures == 3 })
	if said := w.sentTo(room); len(said) != 0 {
		t.Errorf("sent %+v", said)
	}
	w.push(t, `{"type":"m.room.encrypted","room_id":"`+room+`","event_id":"$sealed","sender":"`+bob+`","content":{"session_id":"x"}}`)
	w.matrix.set(func() { w.matrix.encrypted = false })
	expectBody(t, w.says(t, bob, "!call nonsense"), `I do not know the command "nonsense". !call help lists those that I know.`)
}
