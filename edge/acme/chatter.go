package acme

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// chatter is a core of zap that writes everything as one of our debug lines: what an operator must know is told by Issuer.event.
type chatter struct{ log *slog.Logger }

// Enabled implements zapcore.Core.
func (c *chatter) Enabled(zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With implements zapcore.Core.
func (c *chatter) With(fields []zapcore.Field) zapcore.Core {
	return &chatter{c.log.With(attributes(fields)...)}
}

// Check implements zapcore.Core.
func (c *chatter) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write implements zapcore.Core.
func (c *chatter) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Debug(e.Message, append(attributes(fields), "severity", e.Level.String())...)
	return nil
}

// Sync implements zapcore.Core.
func (c *chatter) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	out := make([]any, 0, 2*len(encoder.Fields))
	for key, value := range encoder.Fields {
		out = append(out, key, value)
	}
	return out
}
