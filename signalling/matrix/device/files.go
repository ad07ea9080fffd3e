package device

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"maunium.net/go/mautrix/crypto/utils"
	"maunium.net/go/mautrix/id"
)

const sealSize = 32 // bytes

// LoadKey reads the key that seals the store, and makes one if the file is not there. With another key the store cannot be
// opened: the device is then a new one.
func LoadKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key := make([]byte, sealSize)
		_, _ = rand.Read(key) // never fails (crypto/rand)
		return key, write(file, hex.EncodeToString(key)+"\n")
	case err != nil:
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != sealSize {
		return nil, fmt.Errorf("%s: it holds no key of %d bytes in hexadecimal - restore it, or remove it and have new devices made", file, sealSize)
	}
	return key, nil
}

// write replaces a file whole, for the owner only.
func write(file, text string) error {
	temporary, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = temporary.WriteString(text)
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
	}
	return err
}

// A Recovery is a file with the recovery key of each user for whom this program signs devices, one "user key" a line: as
// people write it, in groups of four letters. Safe for concurrent use.
type Recovery struct {
	file string

	mu sync.Mutex // around reading, adding and writing
}

// NewRecovery names the file, which need not be there yet.
func NewRecovery(file string) *Recovery { return &Recovery{file: file} }

// key returns the recovery key of a user, empty if the file has none.
func (r *Recovery) key(user id.UserID) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, key, err := r.readLocked(user)
	if err == nil && key != "" && utils.DecodeBase58RecoveryKey(key) == nil {
		return "", fmt.Errorf("%s: the key of %s is no recovery key - write it as it was shown, or remove the line", r.file, user)
	}
	return key, err
}

func (r *Recovery) readLocked(user id.UserID) (text, key string, err error) {
	raw, err := os.ReadFile(r.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	for line := range strings.Lines(string(raw)) {
		whose, of, _ := strings.Cut(strings.TrimSpace(line), " ")
		if whose == string(user) {
			key = strings.TrimSpace(of)
		}
	}
	return string(raw), key, nil
}

// keep adds the key of a user.
func (r *Recovery) keep(user id.UserID, key string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, _, err := r.readLocked(user)
	if err != nil {
		return err
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return write(r.file, text+string(user)+" "+key+"\n")
}
