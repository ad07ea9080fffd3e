package sfu

import (
	"slices"

	"callserver/sfu/forward"
)

// tolerance is by how much a layer may be smaller than what was asked for and still be chosen.
const tolerance = 1.2

// Frame rates that the temporal layers of a 30 frames/s camera carry, lowest first (L1T3: every fourth, every second, every frame).
var temporalRates = [...]float64{7.5, 15}

// ladder is the layers of a video track, by spatial index.
type ladder []rung

type rung struct {
	quality       Quality
	width, height uint32
}

// negotiatedLayers assigns the declared layers (sorted by quality) to what was negotiated, by position: index 0 is the lowest.
// Layers that were declared but not negotiated go, ones that were not declared get a plausible size.
func negotiatedLayers(info *TrackInfo, m *Media, streams int, svc bool) []LayerInfo {
	layers := slices.Clone(info.Layers)
	if !svc && len(layers) > streams {
		layers = layers[:streams]
		if streams == 1 { // one stream of several declared sizes: the largest is what is sent
			layers[0] = info.Layers[len(info.Layers)-1]
		}
	}
	if svc && len(layers) > 3 {
		layers = layers[:3]
	}
	for len(layers) < streams {
		layers = append(layers, LayerInfo{Quality: defaultQuality(len(layers), streams)})
	}
	for i := range layers {
		l := &layers[i]
		l.Spatial = int8(i)
		if i > 0 && l.Quality <= layers[i-1].Quality {
			l.Quality = min(layers[i-1].Quality+1, High)
		}
		if l.Width == 0 || l.Height == 0 {
			down := len(layers) - 1 - i
			l.Width, l.Height = info.Width>>down, info.Height>>down
		}
		if i < len(m.RIDs) {
			l.RID = m.RIDs[i]
		}
		if i < len(m.SSRCs) {
			l.SSRC = m.SSRCs[i]
		}
	}
	return layers
}

// defaultQuality names the i-th of n layers.
func defaultQuality(i, n int) Quality {
	if i == n-1 {
		return High
	}
	return Quality(min(i, int(Medium)))
}

func newLadder(info *TrackInfo) ladder {
	l := make(ladder, 0, len(info.Layers))
	for _, layer := range info.Layers {
		l = append(l, rung{layer.Quality, layer.Width, layer.Height})
	}
	return l
}

// top returns the highest spatial index.
func (l ladder) top() int8 { return int8(max(len(l)-1, 0)) }

// forQuality returns the layer for a quality: the one declared so, else the nearest below, else the lowest. High is always the top.
func (l ladder) forQuality(q Quality) int8 {
	if q >= High {
		return l.top()
	}
	best := int8(0)
	for i := range l {
		if l[i].quality <= q {
			best = int8(i)
		}
	}
	return best
}

// forSize returns the smallest layer that covers a request, compared along the side that is the short one of the track.
func (l ladder) forSize(width, height uint32) int8 {
	top := l.top()
	portrait := len(l) > 0 && l[top].width > 0 && l[top].width < l[top].height
	want := height
	if portrait && width > 0 || height == 0 {
		want = width
	}
	for i := range l {
		have := l[i].height
		if portrait && width > 0 || height == 0 {
			have = l[i].width
		}
		if have == 0 {
			have = 180 << i // what clients send unless told otherwise
		}
		if float64(have)*tolerance >= float64(want) {
			return int8(i)
		}
	}
	return top
}

// quality names a layer towards the publisher: the top is High whatever it was declared as.
func (l ladder) quality(spatial int8) Quality {
	if spatial >= l.top() {
		return High
	}
	return l[spatial].quality
}

// choose returns the layer that settings ask for.
func (l ladder) choose(s TrackSettings, source TrackSource) forward.Layer {
	if s.Disabled || s.Quality == Off && s.Width == 0 && s.Height == 0 {
		return forward.NoLayer
	}
	spatial := l.forQuality(s.Quality)
	if s.Width > 0 || s.Height > 0 {
		spatial = l.forSize(s.Width, s.Height)
	}
	layer := forward.MaxTemporal(spatial)
	if s.FPS > 0 && source == Camera { // screens have too low a rate to thin out
		for i, rate := range temporalRates {
			if float64(s.FPS) <= rate*tolerance {
				layer.Temporal = int8(i)
				break
			}
		}
	}
	return layer
}
