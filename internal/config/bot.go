package config

import (
	"fmt"
	"strings"
)

// userGlobs reads patterns of Matrix user ids: who may invite the bot.
func userGlobs(l *loader, key string, v any) {
	for _, item := range items(v) {
		glob, isText := item.(string)
		if !isText || !strings.HasPrefix(glob, "@") || !strings.Contains(glob, ":") || strings.ContainsAny(glob, "/ ") {
			l.problem(key, fmt.Sprintf("%q is no user id", fmt.Sprint(item)), "write whole user ids; * stands for anything and ? for one character: \"@*:example.org\"")
			continue
		}
		l.config.Bot.Invite = append(l.config.Bot.Invite, glob)
	}
}

func elementCall(l *loader, key string, v any) {
	if u, ok := l.url(key, v); ok {
		l.config.Bot.ElementCall = u.String()
	}
}
