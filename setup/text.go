package setup

import "embed"

// texts are the templates: the configuration, and the steps with a file for each homeserver and each proxy.
//
//go:embed text
var texts embed.FS
