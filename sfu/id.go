package sfu

import "crypto/rand"

const idAlphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// newSID returns prefix followed by 12 random characters (70 bits).
func newSID(prefix string) SID {
	var raw [12]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand.Read
	out := make([]byte, 0, len(prefix)+len(raw))
	out = append(out, prefix...)
	for _, b := range raw {
		out = append(out, idAlphabet[int(b)%len(idAlphabet)])
	}
	return SID(out)
}

// trackPrefix is what a track's id starts with: the kind's letter, the source's letter.
func trackPrefix(k Kind, s TrackSource) string {
	prefix := "TR_A"
	if k == Video {
		prefix = "TR_V"
	}
	return prefix + [...]string{Unknown: "", Camera: "C", Microphone: "M", ScreenShare: "S", ScreenShareAudio: "s"}[s]
}
