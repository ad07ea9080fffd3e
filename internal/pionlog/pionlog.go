// A Factory hands Pion's log lines to slog. Package pionlog owns that translation. It never decides what is said.
package pionlog

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// Factory makes Pion's loggers. Its lines speak of single packets and connections, so all of them are debug lines for us, and formatting costs
// nothing unless those are wanted.
type Factory struct{ Log *slog.Logger }

// NewLogger implements logging.LoggerFactory.
func (f Factory) NewLogger(scope string) logging.LeveledLogger {
	return &scopedLog{f.Log, scope}
}

type scopedLog struct {
	log   *slog.Logger
	scope string
}

func (l *scopedLog) line(level, format string, args ...any) {
	ctx := context.Background()
	if !l.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	l.log.Log(ctx, slog.LevelDebug, "pion", "scope", l.scope, "level", level, "text", format)
}

func (l *scopedLog) Trace(string)                 {}
func (l *scopedLog) Tracef(string, ...any)        {}
func (l *scopedLog) Debug(string)                 {}
func (l *scopedLog) Debugf(string, ...any)        {}
func (l *scopedLog) Info(m string)                { l.line("info", m) }
func (l *scopedLog) Infof(m string, args ...any)  { l.line("info", m, args...) }
func (l *scopedLog) Warn(m string)                { l.line("warn", m) }
func (l *scopedLog) Warnf(m string, args ...any)  { l.line("warn", m, args...) }
func (l *scopedLog) Error(m string)               { l.line("error", m) }
func (l *scopedLog) Errorf(m string, args ...any) { l.line("error", m, args...) }
