// Package canonical is Matrix's canonical JSON (Matrix specification, appendices, "Canonical JSON"): the one text of a
// value that servers sign and hash. It owns reading, with what has no canonical form refused, and writing.
// It never signs anything.
package canonical

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// limit is the largest integer of canonical JSON, 2^53-1: what every JSON reader can hold.
const limit = 1<<53 - 1

// maxDepth of arrays and objects within each other.
const maxDepth = 100

// Parse reads one JSON value. Objects are map[string]any, arrays []any, numbers int64; of members with the same name the
// last counts. Numbers that are no integers, or too large, have no canonical form and are an error.
func Parse(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not JSON: more than one value")
	}
	return integers(v, 0)
}

// integers makes an int64 of every number.
func integers(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON deeper than %d", maxDepth)
	}
	var err error
	switch v := v.(type) {
	case json.Number:
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil || n > limit || n < -limit {
			return nil, fmt.Errorf("number %.30s has no canonical form", v)
		}
		return n, nil
	case []any:
		for i := range v {
			if v[i], err = integers(v[i], depth+1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range v {
			if v[name], err = integers(v[name], depth+1); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// Append writes a value of the kinds that [Parse] returns, or an int or string. Another kind is a mistake of the
// program and panics.
func Append(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case string:
		return AppendString(b, v)
	case []any:
		b = append(b, '[')
		for i, member := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = Append(b, member)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) { // bytes of UTF-8 sort as code points do
			if i > 0 {
				b = append(b, ',')
			}
			b = append(AppendString(b, name), ':')
			b = Append(b, v[name])
		}
		return append(b, '}')
	}
	panic(fmt.Sprintf("canonical: a value of type %T", v))
}

// AppendString writes a string. encoding/json escapes more: <, >, &, U+2028, U+2029.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c < 0x20:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
