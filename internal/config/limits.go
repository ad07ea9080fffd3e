package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// trackSources are what may be published, in the words of access tokens.
var trackSources = []string{"microphone", "camera", "screen_share", "screen_share_audio"}

// count reads a limit; 0 means none.
func count(field func(*Config) *int) func(*loader, string, any) {
	return func(l *loader, key string, v any) { l.count(key, v, field(&l.config)) }
}

func (l *loader) count(key string, v any, into *int) {
	n, err := strconv.ParseUint(fmt.Sprint(v), 10, 31)
	if err != nil {
		l.problem(key, fmt.Sprintf("%q is not a number", fmt.Sprint(v)), "use a whole number, or 0 for no limit")
		return
	}
	*into = int(n)
}

// share reads percent; 0 means no limit.
func share(field func(*Config) *int) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		n, err := strconv.ParseUint(strings.TrimSuffix(fmt.Sprint(v), "%"), 10, 31)
		if err != nil || n > 100 {
			l.problem(key, fmt.Sprintf("%q is no share", fmt.Sprint(v)), "write percent, 1 to 100, or 0 for no limit")
			return
		}
		*field(&l.config) = int(n)
	}
}

// bitrate reads bits/s, with k, M or G for thousands, millions and billions.
func bitrate(field func(*Config) *int64) func(*loader, string, any) {
	return func(l *loader, key string, v any) {
		text := fmt.Sprint(v)
		number, factor := text, 1.0
		for unit, f := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
			if n, ok := strings.CutSuffix(text, unit); ok {
				number, factor = n, f
			}
		}
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || !(f >= 0 && f*factor < math.MaxInt64) {
			l.problem(key, fmt.Sprintf("%q is not a bit rate", text), "write bits per second, for example 2500k, 4M or 1G, or 0 for no limit")
			return
		}
		*field(&l.config) = int64(f * factor)
	}
}

// sources reads what may be published.
func sources(field func(*Config) *[]string) func(*loader, string, any) {
	return func(l *loader, key string, v any) { l.sources(key, v, field(&l.config)) }
}

func (l *loader) sources(key string, v any, into *[]string) {
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	}
	if len(items) == 0 {
		l.problem(key, "is empty", "name what may be published ("+strings.Join(trackSources, ", ")+"), or leave it out for everything")
	}
	for _, item := range items {
		name := fmt.Sprint(item)
		switch {
		case !slices.Contains(trackSources, name):
			l.problem(key, fmt.Sprintf("%q cannot be published", name), "use "+strings.Join(trackSources, ", "))
		case !slices.Contains(*into, name):
			*into = append(*into, name)
		}
	}
}

// publish reads who may publish besides users of the homeservers of the configuration.
func (l *loader) publish(key string, v any) bool {
	if v != "local" && v != "remote" {
		l.problem(key, fmt.Sprintf("%q is not a policy", fmt.Sprint(v)), "use local, or remote for users of other homeservers too")
	}
	return v == "remote"
}

func matrixRooms(l *loader, key string, v any) {
	l.entries(key, v, "room", "room: '!id:example.org'", l.matrixRoom)
}

// MatrixRoomKeys lists the settings of one entry of matrix_rooms.
func MatrixRoomKeys() []string { return []string{"room", "publish", "sources", "participants"} }

func (l *loader) matrixRoom(at string, fields map[string]any) {
	var r MatrixRoom
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		key, value := at+"."+name, fields[name]
		switch name {
		case "room":
			r.Room = fmt.Sprint(value)
		case "publish":
			r.PublishRemote = l.publish(key, value)
		case "sources":
			l.sources(key, value, &r.Sources)
		case "participants":
			l.count(key, value, &r.Participants)
		default:
			l.unknownField(key, at, name, MatrixRoomKeys())
		}
	}
	switch {
	case !strings.HasPrefix(r.Room, "!") || len(r.Room) < 2:
		l.problem(at+".room", fmt.Sprintf("%q is not the id of a Matrix room", r.Room), "write the id, which begins with an exclamation mark (room settings, Advanced); an alias does not do")
	case slices.ContainsFunc(l.config.MatrixRooms, func(o MatrixRoom) bool { return o.Room == r.Room }):
		l.problem(at+".room", r.Room+" is listed twice", "keep one entry")
	default:
		l.config.MatrixRooms = append(l.config.MatrixRooms, r)
	}
}
