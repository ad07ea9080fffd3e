package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// Prefix begins the name of every environment variable that overrides a setting.
const Prefix = "CALLSERVER_"

// Load reads the file (none if the name is empty) and the environment (as os.Environ) over it. The error is a Problems
// with everything that is wrong, unless the file could not be read at all.
func Load(file string, environ []string) (*Config, error) {
	l := loader{name: file, dir: filepath.Dir(file), from: map[string]string{}}
	k := koanf.New(".")
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
			return nil, Problems{notYAML(file, err)}
		}
	}
	if err := k.Load(env.Provider(".", env.Opt{
		Prefix:        Prefix,
		EnvironFunc:   func() []string { return environ },
		TransformFunc: l.override,
	}), nil); err != nil {
		return nil, fmt.Errorf("read environment: %w", err)
	}
	return l.decode(k.Raw())
}

func notYAML(file string, err error) Problem {
	text := strings.Join(strings.Fields(err.Error()), " ") // the parser breaks lines
	text = strings.TrimPrefix(strings.TrimPrefix(text, "yaml: "), "unmarshal errors: ")
	return Problem{file, "is not YAML: " + text, "indent with spaces, write every setting as \"key: value\", each once"}
}

// A loader turns the merged tree into a Config and collects what is wrong on the way.
type loader struct {
	name     string            // of the configuration file, "" = none
	dir      string            // files named in the configuration are relative to it
	from     map[string]string // setting -> environment variable that set it
	config   Config
	given    map[string]bool // settings that were written
	problems Problems
}

// override maps an environment variable to the setting of the same path. Lists and maps are written as YAML. An unknown
// name is a warning, not a problem: orchestrators invent variables such as CALLSERVER_PORT_7880_TCP.
func (l *loader) override(name, value string) (string, any) {
	if name == Prefix+"CONFIG" {
		return "", nil // the program's own --config
	}
	for _, s := range settings {
		if name != EnvName(s.key) {
			continue
		}
		l.from[s.key] = name
		if s.scalar {
			return s.key, value
		}
		tree, err := yaml.Parser().Unmarshal([]byte("value: " + value))
		if err != nil {
			l.problem(s.key, "is not a YAML value", "write it on one line, for example "+s.example)
			return "", nil
		}
		return s.key, tree["value"]
	}
	l.config.Warnings = append(l.config.Warnings, name+": no setting has this name, ignored")
	return "", nil
}

// EnvName is the environment variable that overrides a setting.
func EnvName(key string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func (l *loader) decode(tree map[string]any) (*Config, error) {
	defaults(&l.config)
	l.given = map[string]bool{}
	l.walk("", tree)
	l.crossCheck()
	if len(l.problems) > 0 {
		l.problems.sort()
		return nil, l.problems
	}
	slices.Sort(l.config.Warnings)
	return &l.config, nil
}

// walk goes down the tree to the settings.
func (l *loader) walk(path string, tree map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		key, value := name, tree[name]
		if path != "" {
			key = path + "." + name
		}
		if i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key }); i >= 0 {
			if value != nil {
				l.given[key] = true
				settings[i].set(l, key, value)
			}
			continue
		}
		if !slices.Contains(sections(), key) {
			l.unknown(key, Keys())
			continue
		}
		switch below := value.(type) {
		case nil:
		case map[string]any:
			l.walk(key, below)
		default:
			l.problem(key, "is a section, not a value", "write its settings below it, indented")
		}
	}
}

func (l *loader) unknown(key string, known []string) {
	fix := "remove it; docs/callserver.yaml lists every setting"
	if s := suggest(key, append(known, sections()...)); s != "" {
		fix = "did you mean " + s + "?"
	}
	l.problem(key, "no such setting", fix)
}

func (l *loader) problem(key, what, fix string) {
	if name := l.from[key]; name != "" {
		key = name + " (" + key + ")"
	}
	l.problems = append(l.problems, Problem{key, what, fix})
}

// file reads a file named by a setting.
func (l *loader) file(key, name string) ([]byte, bool) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(l.dir, name)
	}
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		l.problem(key, name+" does not exist", "create it, or correct the path (relative paths start at the configuration file)")
	case errors.Is(err, os.ErrPermission):
		l.problem(key, name+" may not be read by this user", "give the user that runs callserver the right to read it")
	case err != nil:
		l.problem(key, err.Error(), "name a readable file")
	}
	return text, err == nil
}
