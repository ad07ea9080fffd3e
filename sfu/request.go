package sfu

// TrackRequest asks to publish a track (AddTrackRequest of the client protocol). Its slices must not be written afterwards.
type TrackRequest struct {
	CID, Name, Stream              string
	SID                            SID // set for a further codec of an existing track
	Kind                           Kind
	Source                         TrackSource
	Muted                          bool
	Width, Height                  uint32
	Layers                         []LayerInfo
	Codecs                         []CodecRequest
	Encryption, BackupCodecPolicy  int32
	DisableRED, DisableDTX, Stereo bool
	AudioFeatures, PacketTrailer   []int32
}

// CodecRequest is one codec in which a client would publish a track, preferred first.
type CodecRequest struct {
	Codec     string // bare subtype, "vp8"
	CID       string // empty: not now, but on demand
	Layers    []LayerInfo
	LayerMode int32
}

// Media is what was negotiated for a track.
type Media struct {
	MID, Mime, SDPCID string
	RIDs              []string // simulcast, lowest resolution first
	SSRCs             []uint32 // simulcast without rids, lowest resolution first
}

// TrackSettings is what a subscriber asks of a track. The zero value asks for the lowest quality.
type TrackSettings struct {
	Disabled           bool
	Quality            Quality
	Width, Height, FPS uint32 // pixels, frames/s; 0 = not said. Dimensions beat Quality
	Priority           uint32
}

// TrackPermission lets one participant subscribe to a publisher's tracks. Participant or Identity names it.
type TrackPermission struct {
	Participant SID
	Identity    Identity
	All         bool
	Tracks      []SID
}

// DataWriter is a participant's data channels.
type DataWriter interface {
	// WriteData sends one message. It must not block, must not keep b and is called without any lock held.
	WriteData(reliable bool, b []byte) error
}
