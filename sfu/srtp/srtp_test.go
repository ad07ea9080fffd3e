package srtp

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	pion "github.com/pion/srtp/v3"
)

var profiles = map[Profile]pion.ProtectionProfile{
	AES128SHA1: pion.ProtectionProfileAes128CmHmacSha1_80,
	GCM128:     pion.ProtectionProfileAeadAes128Gcm,
	GCM256:     pion.ProtectionProfileAeadAes256Gcm,
}

// pair is our end, as the DTLS server, and another implementation's, as the client.
type pair struct {
	seal    *Sealer
	open    *Opener
	out, in *pion.Context // the client's
}

func newPair(t testing.TB, p Profile) pair {
	t.Helper()
	material := make([]byte, p.Material())
	_, _ = rand.Read(material)
	seal, open, err := Server(p, material)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := p.sizes()
	salts := material[2*s.key:]
	out, err := pion.CreateContext(material[:s.key], salts[:s.salt], profiles[p])
	if err != nil {
		t.Fatal(err)
	}
	in, err := pion.CreateContext(material[s.key:2*s.key], salts[s.salt:], profiles[p])
	if err != nil {
		t.Fatal(err)
	}
	return pair{seal, open, out, in}
}

// packet is an RTP packet with a header of 12 bytes.
func packet(seq uint16, ssrc uint32, payload []byte) []byte {
	b := make([]byte, 12, 1600)
	b[0], b[1] = 0x80, 96
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}

func eachProfile(t *testing.T, f func(t *testing.T, p pair)) {
	for profile := range profiles {
		t.Run(fmt.Sprintf("%#04x", uint16(profile)), func(t *testing.T) { f(t, newPair(t, profile)) })
	}
}

// TestRTP exchanges packets with another implementation, over several rounds of the sequence number.
func TestRTP(t *testing.T) {
	eachProfile(t, func(t *testing.T, p pair) {
		var s Stream
		var r Rollover
		seq, room := uint16(0x7000), make([]byte, 1600)
		for n := range 1000 {
			payload := bytes.Repeat([]byte{byte(n)}, n)
			plain := packet(seq, 7, payload)
			index, err := s.Next(seq)
			if err != nil {
				t.Fatal(err)
			}
			in := payload
			b := make([]byte, 12, 1600)
			copy(b, plain)
			if n%2 == 0 { // directly behind
				b = append(b, payload...)
				in, b = b[12:], b[:12]
			}
			sealed := p.seal.RTP(b, in, 7, index)
			got, err := p.in.DecryptRTP(nil, sealed, nil)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("packet %d is not what was sealed: %v", n, err)
			}
			theirs, err := p.out.EncryptRTP(nil, plain, nil)
			if err != nil {
				t.Fatal(err)
			}
			index = r.Index(seq)
			got, err = p.open.RTP(room, theirs, 12, 7, index)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("packet %d is not what they sealed: %v", n, err)
			}
			r.Accept(index)
			seq += 331
		}
		if s.highest>>16 < 5 {
			t.Fatalf("no rounds: %#x", s.highest)
		}
		bad := p.seal.RTP(packet(1, 7, nil), []byte("payload"), 7, 1<<40)
		if _, err := p.in.DecryptRTP(nil, bad, nil); err == nil {
			t.Error("a wrong index went unnoticed")
		}
		if _, err := p.open.RTP(room, bad, 12, 7, 1); err == nil {
			t.Error("a packet under our own key was opened")
		}
		if _, err := p.open.RTP(room, bad[:13], 12, 7, 1); err == nil {
			t.Error("a packet without a tag was opened")
		}
	})
}

func TestRTCP(t *testing.T) {
	eachProfile(t, func(t *testing.T, p pair) {
		pli := []byte{0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2}
		for range 3 {
			sealed := p.seal.RTCP(nil, pli)
			got, err := p.in.DecryptRTCP(nil, sealed, nil)
			if err != nil || !bytes.Equal(got, pli) {
				t.Fatalf("got %x, %v", got, err)
			}
			theirs, err := p.out.EncryptRTCP(nil, pli, nil)
			if err != nil {
				t.Fatal(err)
			}
			again := bytes.Clone(theirs)
			got, err = p.open.RTCP(theirs)
			if err != nil || !bytes.Equal(got, pli) {
				t.Fatalf("got %x, %v", got, err)
			}
			if _, err := p.open.RTCP(again); !errors.Is(err, ErrOld) {
				t.Errorf("a packet that came before: %v", err)
			}
			theirs, _ = p.out.EncryptRTCP(nil, pli, nil)
			theirs[9] ^= 1
			if _, err := p.open.RTCP(theirs); !errors.Is(err, ErrTag) {
				t.Errorf("a changed packet: %v", err)
			}
		}
		if a, b := p.seal.RTCP(nil, pli), p.seal.RTCP(nil, pli); bytes.Equal(a, b) {
			t.Error("one packet twice under one index")
		}
	})
}

func TestArrived(t *testing.T) {
	a := arrived{highest: 1000}
	for _, c := range []struct {
		index uint32
		want  bool
	}{{1000, true}, {1000, false}, {998, true}, {998, false}, {937, true}, {936, false}, {1001, true}, {999, true}, {937, false},
		{1200, true}, {1001, false}, {1199, true}, {1200, false}, {1137, true}, {1 << 31, true}, {1200, false}} {
		if got := a.note(c.index); got != c.want {
			t.Errorf("%d after %d: got %v", c.index, a.highest, got)
		}
	}
}

func TestMaterial(t *testing.T) {
	if _, _, err := Server(2, nil); err == nil || Profile(2).Material() != 0 {
		t.Error("a profile that is not served")
	}
	if _, _, err := Server(GCM128, make([]byte, 55)); err == nil {
		t.Error("too little material")
	}
}

// TestStream gives every number once.
func TestStream(t *testing.T) {
	for _, c := range []struct {
		name string
		seqs []uint16
		want []int64 // index; -1 = refused
	}{
		{"in order", []uint16{10, 11, 12}, []int64{10, 11, 12}},
		{"late", []uint16{10, 13, 11, 12}, []int64{10, 13, 11, 12}},
		{"twice", []uint16{10, 11, 10, 11}, []int64{10, 11, -1, -1}},
		{"over the end", []uint16{65534, 65535, 0, 1, 65535}, []int64{65534, 65535, 65536, 65537, -1}},
		{"late over the end", []uint16{65534, 0, 65535}, []int64{65534, 65536, 65535}},
		{"from before the start", []uint16{0, 65535}, []int64{0, -1}},
		{"too old to tell", []uint16{1000, 1000 - window, 1000 - window + 1}, []int64{1000, -1, 1000 - window + 1}},
		{"a jump forgets", []uint16{1, 1 + window, 2}, []int64{1, 1 + window, 2}},
		{"a jump of a round", []uint16{1, 30000, 60000, 1}, []int64{1, 30000, 60000, 65537}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Stream
			for i, seq := range c.seqs {
				got, err := s.Next(seq)
				if (err != nil) != (c.want[i] < 0) || err == nil && int64(got) != c.want[i] {
					t.Errorf("packet %d, number %d: got %d, %v, want %d", i, seq, got, err, c.want[i])
				}
			}
		})
	}
}

// TestAgain repeats only what was sent.
func TestAgain(t *testing.T) {
	var s Stream
	if _, err := s.Again(5, []byte("a")); err == nil {
		t.Error("before anything was sent")
	}
	s.Remember(64)
	for seq := range uint16(100) {
		i, err := s.Next(seq)
		if err != nil {
			t.Fatal(err)
		}
		s.Print(i, []byte("header"), []byte{byte(seq)})
	}
	if i, err := s.Again(99, []byte("header"), []byte{99}); err != nil || i != 99 {
		t.Errorf("got %d, %v", i, err)
	}
	for name, seq := range map[string]uint16{"never sent": 100, "forgotten": 35} {
		if _, err := s.Again(seq, []byte("header"), []byte{byte(seq)}); !errors.Is(err, ErrReuse) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Again(98, []byte("headeR"), []byte{98}); !errors.Is(err, ErrReuse) {
		t.Errorf("another header: %v", err)
	}
}

func TestAllocations(t *testing.T) {
	p := newPair(t, GCM128)
	b, payload := make([]byte, 12, 1600), make([]byte, 1100)
	var s Stream
	seq := uint16(0)
	if n := testing.AllocsPerRun(100, func() {
		seq++
		index, err := s.Next(seq)
		if err != nil {
			t.Fatal(err)
		}
		p.seal.RTP(b[:12], payload, 1, index)
	}); n != 0 {
		t.Errorf("%v allocations a packet sealed", n)
	}
	theirs, err := p.out.EncryptRTP(nil, packet(1, 1, payload), nil)
	if err != nil {
		t.Fatal(err)
	}
	room := make([]byte, len(theirs))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := p.open.RTP(room, theirs, 12, 1, 1); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet opened", n)
	}
}

// FuzzOpen opens what anybody may send; nothing of it is authentic.
func FuzzOpen(f *testing.F) {
	var pairs []pair
	for profile := range profiles {
		pairs = append(pairs, newPair(f, profile))
	}
	f.Add(packet(1, 2, []byte("payload and what might be a tag")), 12)
	f.Add([]byte{0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0, 0, 1}, 12)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		for _, p := range pairs {
			if n >= 12 && n <= len(b) {
				if _, err := p.open.RTP(make([]byte, len(b)), b, n, 1, 1); err == nil {
					t.Fatalf("opened %x", b)
				}
			}
			if _, err := p.open.RTCP(bytes.Clone(b)); err == nil {
				t.Fatalf("opened %x", b)
			}
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for profile := range profiles {
		for _, size := range []int{80, 1100} {
			b.Run(fmt.Sprintf("%#04x/%d bytes", uint16(profile), size), func(b *testing.B) {
				p := newPair(b, profile)
				to, payload := make([]byte, 12, 1600), make([]byte, size)
				var index uint64
				b.ReportAllocs()
				for b.Loop() {
					index++
					p.seal.RTP(to[:12], payload, 1, index)
				}
			})
		}
	}
}
