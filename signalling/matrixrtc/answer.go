package matrixrtc

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// A refusal is an answer that is an error to the client.
type refusal struct {
	status int
	code   string        // Matrix errcode
	reason reason        // for the operator's statistics; "" means that the errcode says it
	text   string        // for the person on the call
	err    error         // for the operator; nil if the text says it all
	retry  time.Duration // only with 429
}

func (r *refusal) Error() string {
	if r.err != nil {
		return r.code + ": " + r.err.Error()
	}
	return r.code + ": " + r.text
}

func (r *refusal) Unwrap() error { return r.err }

// cors is which cross-origin requests one group of endpoints accepts. The origin is always any: no cookie is involved.
type cors struct{ methods, headers string }

var (
	tokenCORS  = cors{"POST", "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token"}
	matrixCORS = cors{"GET, POST, PUT, DELETE, OPTIONS", "X-Requested-With, Content-Type, Authorization"}
)

func (c cors) set(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", c.methods)
	h.Set("Access-Control-Allow-Headers", c.headers)
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // strings, maps and slices of them: cannot happen
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client is gone: nobody to tell
}

func refuse(w http.ResponseWriter, r *refusal) {
	body := map[string]any{"errcode": r.code, "error": r.text}
	if r.retry > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((r.retry+time.Second-1)/time.Second), 10))
		body["retry_after_ms"] = r.retry.Milliseconds()
	}
	answer(w, r.status, body)
}
