package federation

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"callserver/internal/canonical"
)

// sendTimeout is for a whole request to another homeserver, which may have to ask others itself.
const sendTimeout = 15 * time.Second

// Send posts content to another homeserver, signed in the name of one of ours, and returns the answer whatever its
// status is. Content is of the kinds of package canonical. An error means that there was no answer.
func (d *Directory) Send(ctx context.Context, from string, key *SigningKey, to, path string, content map[string]any, now time.Time) (int, []byte, error) {
	if d.isSilent(to, now) {
		d.spared.Add(1)
		return 0, nil, fmt.Errorf("send to %s: %w", to, errSpared)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	claim := key.Sign(from, Message{Method: http.MethodPost, URI: path, Destination: to, Content: content})
	status, body, err := d.call(ctx, to, ask{
		method: http.MethodPost, path: path, authorization: claim.String(), body: canonical.Append(nil, content),
	}, now)
	if err != nil {
		return 0, nil, fmt.Errorf("send to %s: %w", to, err)
	}
	return status, body, nil
}
