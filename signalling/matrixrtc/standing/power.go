package standing

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// PowerLevels are the part of m.room.power_levels that we use (Client-Server API, m.room.power_levels).
type powerLevels struct {
	users   map[id.UserID]int64
	initial int64 // of everybody else
	kick    int64
}

// parseLevels reads levels so that what cannot be read is no power.
func parseLevels(raw json.RawMessage) *powerLevels {
	var content struct {
		Users   map[id.UserID]json.RawMessage `json:"users"`
		Default json.RawMessage               `json:"users_default"`
		Kick    json.RawMessage               `json:"kick"`
	}
	_ = json.Unmarshal(raw, &content)
	l := &powerLevels{users: make(map[id.UserID]int64), initial: parseLevel(content.Default, 0, math.MinInt64)}
	l.kick = parseLevel(content.Kick, 50, math.MaxInt64)
	for user, level := range content.Users {
		l.users[user] = parseLevel(level, 0, math.MinInt64)
	}
	return l
}

func (l *powerLevels) of(user id.UserID) int64 {
	if level, ok := l.users[user]; ok {
		return level
	}
	return l.initial
}

// parseLevel reads a level, which may be text in rooms before version 10.
func parseLevel(raw json.RawMessage, absent, unreadable int64) int64 {
	if len(raw) == 0 {
		return absent
	}
	text := strings.TrimSpace(strings.Trim(string(raw), `"`))
	if level, err := strconv.ParseInt(text, 10, 64); err == nil {
		return level
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < 1<<53 {
		return int64(f)
	}
	return unreadable
}

// parseCreators says who made a room, and whether that is power above all levels (room version 12, MSC4289).
func parseCreators(e *event.Event) (creators []id.UserID, infinite bool) {
	var content struct {
		Version    string      `json:"room_version"`
		Additional []id.UserID `json:"additional_creators"`
	}
	_ = json.Unmarshal(e.Content.VeryRaw, &content)
	creators = []id.UserID{e.Sender}
	if version, err := strconv.Atoi(content.Version); err == nil && version < 12 || err != nil && !strings.HasPrefix(content.Version, "org.matrix.hydra.") {
		return creators, false
	}
	return append(creators, content.Additional...), true
}
