package member

import (
	"crypto/sha256"
	"encoding/base64"

	"callserver/internal/canonical"
)

// SlotRoom is the slot of a room's ordinary call, which older requests and state events do not name.
const SlotRoom = "m.call#ROOM"

// Hash is the H of MSC4195: SHA-256 over the canonical JSON of the strings as an array, in base64 without padding.
// The result contains '/' and '+': never put it in a path unescaped.
func Hash(parts ...string) string {
	text := []byte{'['}
	for i, p := range parts {
		if i > 0 {
			text = append(text, ',')
		}
		text = canonical.AppendString(text, p)
	}
	sum := sha256.Sum256(append(text, ']'))
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

// RoomName is the media server's name for the call in a slot of a Matrix room.
func RoomName(roomID, slotID string) string { return Hash(roomID, slotID) }

// DeviceIdentity is the participant identity that clients expect of the older endpoint and of state events.
func DeviceIdentity(userID, deviceID string) string { return userID + ":" + deviceID }

// MemberIdentity is the participant identity that clients expect of /get_token.
func MemberIdentity(userID, deviceID, memberID string) string {
	return Hash(userID, deviceID, memberID)
}

// UnlinkedIdentity is the participant identity that the present text of MSC4195 specifies: without a device.
func UnlinkedIdentity(userID, memberID string) string { return Hash(userID, memberID) }
