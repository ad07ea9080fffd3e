package setup

import (
	"fmt"
	"path/filepath"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"callserver/signalling/homeserver"
	"callserver/signalling/token"
)

// Names of the files.
const (
	ConfigurationFile = "callserver.yaml"
	KeysFile          = "callserver-keys.yaml"
	NarrowFile        = "callserver-registration.yaml"
	WideFile          = "callserver-wide-registration.yaml"
	StepsFile         = "callserver-next-steps.md"
)

// A File is one to be written, for its owner's eyes only.
type File struct {
	Name string // without directory
	Text []byte
}

// FileNames lists every file that Files may return.
func FileNames() []string {
	return []string{ConfigurationFile, KeysFile, NarrowFile, WideFile, StepsFile}
}

// Files makes everything that is written to disk, with new secrets; the last one is the steps that Steps returns.
func (s Site) Files() ([]File, error) {
	narrow := homeserver.NarrowRegistration(s.ServerName, s.pushURL())
	if s.Homeserver == "synapse" {
		narrow.ProxyPrefix, narrow.ProxyURL = "rtc/livekit", s.pushURL()
	}
	registrations := map[string]*homeserver.Registration{NarrowFile: narrow}
	if s.Wide {
		registrations[WideFile] = homeserver.WideRegistration(s.ServerName)
	}
	name, secret := token.NewKey()
	configuration, err := s.render("callserver.yaml")
	if err != nil {
		return nil, err
	}
	files := []File{
		{ConfigurationFile, []byte(configuration)},
		{KeysFile, fmt.Appendf(nil, "%s: %s\n", name, secret)},
	}
	for _, name := range s.registrationFiles() {
		text, err := registrations[name].YAML()
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		files = append(files, File{name, text})
	}
	steps, err := s.Steps()
	return append(files, File{StepsFile, []byte(steps)}), err
}

func (s Site) registrationFiles() []string {
	if s.Wide {
		return []string{NarrowFile, WideFile}
	}
	return []string{NarrowFile}
}

// Steps says in Markdown what is left to do, with every snippet ready to be pasted.
func (s Site) Steps() (string, error) { return s.render("steps.md") }

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"yaml": scalar,
	"join": strings.Join,
}).ParseFS(texts, "text/*"))

func (s Site) render(name string) (string, error) {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name, page{s}); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return b.String(), nil
}

// scalar writes a text so that YAML reads it back as a text.
func scalar(text string) (string, error) {
	b, err := yaml.Marshal(text)
	return strings.TrimSpace(string(b)), err
}

// A page is a Site as the templates see it.
type page struct{ Site }

func (p page) Registrations() []string { return p.registrationFiles() }

// At is the path of a file of ours.
func (p page) At(name string) string { return filepath.Join(p.Directory, name) }

// Titled is the homeserver's name in a sentence.
func (p page) Titled() string {
	switch p.Homeserver {
	case "synapse":
		return "Synapse"
	case "dendrite":
		return "Dendrite"
	}
	return "the homeserver"
}

func (p page) Local() string      { return p.local() }
func (p page) Upstream() string   { return strings.TrimPrefix(p.local(), "http://") }
func (p page) PublicHost() string { h, _ := host(p.PublicURL); return h }
func (p page) PublicPort() string { _, port := host(p.PublicURL); return port }
func (p page) MatrixHost() string { h, _ := host(p.ClientAPI); return h }
func (p page) TLS() bool          { return strings.HasPrefix(p.PublicURL, "https:") }
func (p page) ServiceURL() string { return p.PublicURL + p.ServicePath }

// Direct reports whether callserver reaches the homeserver itself, not its proxy.
func (p page) Direct() bool { return p.HomeserverURL != p.ClientAPI }

// SFUURL is where clients open their websocket.
func (p page) SFUURL() string { return "ws" + strings.TrimPrefix(p.PublicURL, "http") + p.SFUPath }

// ServerHost is the host of the server name, where clients look for the well-known document.
func (p page) ServerHost() string {
	h, _ := host("https://" + p.ServerName)
	return h
}

// Paths is the expression for the paths of the homeserver that are callserver's: transports (MSC4143) and the endpoints
// of MSC4195, for clients and for other homeservers, in their unstable and stable places.
func (p page) Paths() string {
	return `^/_matrix/(client|federation)/(v1|unstable/[^/]+)/rtc/(transports$|livekit/)`
}

// WellKnown is the client well-known document.
func (p page) WellKnown() string {
	return fmt.Sprintf(`{"m.homeserver":{"base_url":%q},"org.matrix.msc4143.rtc_foci":[{"type":"livekit","livekit_service_url":%q}]}`, p.ClientAPI, p.ServiceURL())
}
