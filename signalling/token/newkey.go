package token

import (
	"crypto/rand"
	"strings"
)

// NewKey makes a key and its secret, which has 260 bits of randomness.
func NewKey() (key, secret string) {
	return "key-" + strings.ToLower(rand.Text()[:8]), rand.Text() + rand.Text()
}
