package framecrypto

import (
	"bytes"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

var material, _ = hex.DecodeString("000102030405060708090a0b0c0d0e0f")

func ring(t testing.TB) *Keys {
	t.Helper()
	k := &Keys{}
	if err := errors.Join(k.Set(0, material), k.Use(0)); err != nil {
		t.Fatal(err)
	}
	return k
}

// Made with WebCrypto and an HKDF of another hand.
func TestDerivation(t *testing.T) {
	raw, err := hkdf.Key(sha256.New, material, []byte(salt), info, keySize)
	if got, want := hex.EncodeToString(raw), "4086b4641064e1ae8b63d4eb83ad3e7e"; err != nil || got != want {
		t.Errorf("of a key: %s, %v; want %s", got, err, want)
	}
	raw, err = pbkdf2.Key(sha256.New, "hunter2", []byte(salt), iterations, keySize)
	if got, want := hex.EncodeToString(raw), "a96875f98532d161d24f8879c1f56bc3"; err != nil || got != want {
		t.Errorf("of a password: %s, %v; want %s", got, err, want)
	}
}

func TestVector(t *testing.T) {
	const sealed = "780daf95232c9ca7fdac3181c8fa20c51e98638ee50102030405060708090a0b0c0c00"
	plain := unhex(t, "78aabbccdd")
	keys := ring(t)
	if got, err := NewOpener(keys, Opus).Open([]byte("before"), unhex(t, sealed), false); err != nil || !bytes.Equal(got, append([]byte("before"), plain...)) {
		t.Errorf("opened: %x, %v", got, err)
	}
	s := NewSealer(keys, Opus, 0x01020304)
	s.count = 0
	got, err := s.Seal(nil, plain, 0x05060708, false)
	if err != nil || len(got) != len(sealed)/2 || got[0] != 0x78 || hex.EncodeToString(got[len(got)-footer:]) != "0102030405060708050607080c00" {
		t.Errorf("sealed: %x, %v", got, err)
	}
}

var picture = []byte("\x00\x00\x00\x01\x67\x42\xc0\x1f\x00\x00\x01\x68\xce\x00\x00\x01\x65\x88\x84\x00\x00\x00\x00\x01\x02\x00\x00\x03\x01 a slice")

func TestReadable(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 40)
	for _, tc := range []struct {
		name    string
		codec   Codec
		frame   []byte
		intra   bool
		size    int
		escaped bool
	}{
		{"Opus", Opus, long, false, 1, false},
		{"VP8, key frame", VP8, long, true, 10, false},
		{"VP8", VP8, long, false, 3, false},
		{"VP8, short", VP8, long[:2], true, 10, false},
		{"VP9", VP9, long, true, 0, false},
		{"H.264: parameters and a slice", H264, picture, true, 18, true},
		{"H.264: a slice", H264, []byte("\x00\x00\x01\x41\x9a\x01\x02"), false, 5, true},
		{"H.264: a slice of one byte", H264, []byte("\x00\x00\x01\x41"), false, 5, true},
		{"H.264: an access unit delimiter first", H264, []byte("\x00\x00\x00\x01\x09\x10\x00\x00\x00\x01\x41\x9a\x01"), false, 12, true},
		{"H.264: no slice", H264, long, true, 10, false},
		{"H.264: a start code at the end", H264, []byte("\x00\x00\x01"), false, 3, false},
	} {
		size, escaped := readable(tc.codec, tc.frame, tc.intra)
		if size != tc.size || escaped != tc.escaped {
			t.Errorf("%s: %d bytes, escaped %v; want %d, %v", tc.name, size, escaped, tc.size, tc.escaped)
		}
	}
}

// What is sealed has no start code behind its header, and one of four bytes in it.
func TestH264Form(t *testing.T) {
	keys := ring(t)
	s := NewSealer(keys, H264, 0) // an IV with many zeros
	for i := range 2000 {
		sealed, err := s.Seal(nil, picture, uint32(i)%3, true)
		if err != nil {
			t.Fatal(err)
		}
		header := []byte("\x00\x00\x00\x01\x67\x42\xc0\x1f\x00\x00\x00\x01\x68\xce\x00\x00\x00\x01\x65\x88")
		if !bytes.HasPrefix(sealed, header) {
			t.Fatalf("header %x", sealed[:len(header)])
		}
		for _, code := range []string{"\x00\x00\x00", "\x00\x00\x01", "\x00\x00\x02"} {
			if at := bytes.Index(sealed[len(header):], []byte(code)); at >= 0 {
				t.Fatalf("%x at %d of %x", code, at, sealed)
			}
		}
		opened, err := NewOpener(keys, H264).Open(nil, sealed, true)
		want := append(bytes.Clone(header), picture[18:]...)
		if err != nil || !bytes.Equal(opened, want) {
			t.Fatalf("opened %x, %v; want %x", opened, err, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		codec := rapid.SampledFrom([]Codec{Opus, VP8, VP9, H264}).Draw(t, "codec")
		frame := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 0, 1, 2, 3, 0x65, 0xff}), 0, 60).Draw(t, "frame")
		intra := rapid.Bool().Draw(t, "intra")
		index := rapid.Byte().Draw(t, "index")
		keys := &Keys{}
		if err := errors.Join(keys.Set(index, rapid.SliceOfN(rapid.Byte(), 16, 32).Draw(t, "key")), keys.Use(index)); err != nil {
			t.Fatal(err)
		}
		size, escaped := readable(codec, frame, intra)
		sealed, err := NewSealer(keys, codec, rapid.Uint32().Draw(t, "ssrc")).Seal(nil, frame, rapid.Uint32().Draw(t, "time"), intra)
		if short := len(frame) > 0 && size > len(frame); short || err != nil {
			if short != errors.Is(err, ErrMalformed) {
				t.Fatalf("a frame of %d bytes whose header has %d: %v", len(frame), size, err)
			}
			return
		}
		opened, err := NewOpener(keys, codec).Open(nil, sealed, intra)
		want := frame
		if escaped {
			want = append(appendLongStarts(nil, frame[:size]), frame[size:]...)
		}
		if err != nil || !bytes.Equal(opened, want) {
			t.Fatalf("opened %x, %v; want %x", opened, err, want)
		}
	})
}

func TestKeys(t *testing.T) {
	k := &Keys{}
	frame := []byte("a frame of some length")
	if _, err := NewSealer(k, Opus, 1).Seal(nil, frame, 0, false); !errors.Is(err, ErrNoKey) {
		t.Errorf("sealed without a key: %v", err)
	}
	if err := k.Use(3); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
	if k.Set(3, material[:15]) == nil || k.Set(3, make([]byte, 65)) == nil {
		t.Error("a key of a wrong size was taken")
	}
	theirs := ring(t)
	sealed, err := NewSealer(theirs, Opus, 1).Seal(nil, frame, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	o := NewOpener(k, Opus)
	expect := func(when string, sealed []byte, want error) {
		t.Helper()
		if got, err := o.Open([]byte("x"), sealed, false); !errors.Is(err, want) || want != nil && string(got) != "x" {
			t.Errorf("%s: %q, %v; want %v", when, got, err, want)
		}
	}
	expect("no key", sealed, ErrNoKey)
	if err := k.Set(0, bytes.Repeat([]byte{1}, 16)); err != nil {
		t.Fatal(err)
	}
	for range maxFailed + 1 {
		expect("another key", sealed, ErrForged)
	}
	expect("again and again", sealed, ErrDeadKey)
	if err := k.Set(0, material); err != nil {
		t.Fatal(err)
	}
	expect("the right key", sealed, nil)
	for range maxFailed {
		expect("a few forged ones", append(bytes.Clone(sealed[:5]), append([]byte{^sealed[5]}, sealed[6:]...)...), ErrForged)
	}
	expect("which are forgotten", sealed, nil)
	expect("too short", sealed[:20], ErrMalformed)
	expect("nothing", nil, nil)
	if err := k.SetPassword(9, "hunter2"); err != nil {
		t.Fatal(err)
	}
	expect("a password that is wrong", append(bytes.Clone(sealed[:len(sealed)-1]), 9), ErrForged)
}

// A key that the sender turned opens, and stays turned.
func TestRatchet(t *testing.T) {
	theirs, ours := ring(t), ring(t)
	for range ratchets {
		next, err := theirs.ring[0].Load().turned()
		if err != nil {
			t.Fatal(err)
		}
		theirs.ring[0].Store(next)
	}
	s, o := NewSealer(theirs, VP8, 1), NewOpener(ours, VP8)
	for range 2 {
		sealed, err := s.Seal(nil, []byte("a frame of some length"), 0, true)
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := o.Open(nil, sealed, true); err != nil || string(opened) != "a frame of some length" {
			t.Errorf("%q, %v", opened, err)
		}
	}
	if !bytes.Equal(ours.ring[0].Load().material, theirs.ring[0].Load().material) {
		t.Error("the key was not kept")
	}
}

func TestAllocations(t *testing.T) {
	for _, codec := range []Codec{Opus, VP8, VP9, H264} {
		keys := ring(t)
		s, o := NewSealer(keys, codec, 1), NewOpener(keys, codec)
		frame := append(bytes.Clone(picture), bytes.Repeat([]byte{0, 0, 1, 9}, 300)...)
		var sealed, opened []byte
		n := testing.AllocsPerRun(100, func() {
			var err, err2 error
			sealed, err = s.Seal(sealed[:0], frame, 90, true)
			opened, err2 = o.Open(opened[:0], sealed, true)
			if err != nil || err2 != nil {
				t.Error(err, err2)
			}
		})
		if n > 0 {
			t.Errorf("codec %d: %v allocations a frame", codec, n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	keys := ring(f)
	for codec := range uint8(4) {
		sealed, err := NewSealer(keys, Codec(codec), 1).Seal(nil, picture, 90, true)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(codec, sealed, true)
	}
	f.Add(uint8(3), []byte("\x00\x00\x01\x65"), true)
	f.Fuzz(func(t *testing.T, codec uint8, frame []byte, intra bool) {
		c := Codec(codec % 4)
		opened, err := NewOpener(keys, c).Open(nil, frame, intra)
		if err == nil && len(opened)+tagSize+footer > len(frame) && len(frame) > 0 {
			t.Errorf("%d bytes opened from %d", len(opened), len(frame))
		}
		if got := appendUnescaped(nil, appendEscaped(nil, frame)); !bytes.Equal(got, frame) {
			t.Errorf("escaped and back: %x, was %x", got, frame)
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	keys := ring(b)
	s, o := NewSealer(keys, VP8, 1), NewOpener(keys, VP8)
	frame := bytes.Repeat([]byte{7}, 5000)
	var sealed, opened []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		sealed, _ = s.Seal(sealed[:0], frame, 90, false)
		opened, _ = o.Open(opened[:0], sealed, false)
	}
}
