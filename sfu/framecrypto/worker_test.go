package framecrypto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// A sealedFrame is one that livekit-client's worker sealed (testbed/framecrypto).
type sealedFrame struct {
	Codec, Material, Password string
	Index                     uint8
	Intra                     bool
	Plain, Received, Sealed   string // hex
}

// Frames of the real worker are opened, and sealed for it to open.
func TestWorker(t *testing.T) {
	name := os.Getenv("CALLSERVER_TEST_FRAMES")
	if name == "" {
		t.Skip("needs frames of the real worker: node --test testbed/framecrypto/test.mjs makes them and runs this")
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var frames []sealedFrame
	if err := json.Unmarshal(text, &frames); err != nil || len(frames) == 0 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	codecs := map[string]Codec{"opus": Opus, "vp8": VP8, "vp9": VP9, "h264": H264}
	var keys *Keys
	sealed := make([]string, len(frames))
	for i, f := range frames {
		if i == 0 || f.Codec != frames[i-1].Codec || f.Index != frames[i-1].Index {
			keys = &Keys{}
			set := func() error { return keys.Set(f.Index, unhex(t, f.Material)) }
			if f.Password != "" {
				set = func() error { return keys.SetPassword(f.Index, f.Password) }
			}
			if err := errors.Join(set(), keys.Use(f.Index)); err != nil {
				t.Fatal(err)
			}
		}
		codec, known := codecs[f.Codec]
		if !known {
			t.Fatalf("codec %q", f.Codec)
		}
		// Sealed before the worker's is opened, which turns the key where the worker turned it.
		ours, err := NewSealer(keys, codec, 0).Seal(nil, unhex(t, f.Plain), uint32(i)*3000, f.Intra)
		if err != nil {
			t.Fatalf("frame %d, %s: %v", i, f.Codec, err)
		}
		sealed[i] = hex.EncodeToString(ours)
		opened, err := NewOpener(keys, codec).Open(nil, unhex(t, f.Sealed), f.Intra)
		if err != nil || !bytes.Equal(opened, unhex(t, f.Received)) {
			t.Fatalf("frame %d, %s, key %d: %x, %v; want %s", i, f.Codec, f.Index, opened, err, f.Received)
		}
	}
	text, err = json.Marshal(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".sealed", text, 0o600); err != nil {
		t.Fatal(err)
	}
}
