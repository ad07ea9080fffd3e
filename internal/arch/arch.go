// Package arch is the import map of callserver. It owns the list of who may import whom and which packages stay
// passive (no goroutine, socket or clock), and checks source trees against it. It is never part of the product: its
// test runs over the whole module and fails by name and reason.
package arch

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Violation is one import or statement that the map does not allow.
type Violation struct {
	Package string // path below the module, "sfu/forward"
	Where   string // file:line
	What    string // what was found
	Why     string // the reason behind the rule
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s (%s)\n\twhy: %s", v.Where, v.What, v.Package, v.Why)
}

// Check parses every Go file below root, a directory that holds the module's go.mod, and returns what breaks the map.
// Test files, testdata, testbed and nested modules are exempt.
func Check(root, module string) ([]Violation, error) {
	var found []Violation
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(root, name)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		vs, err := checkFile(root, module, name)
		found = append(found, vs...)
		return err
	})
	slices.SortFunc(found, func(a, b Violation) int { return cmp.Compare(a.Where, b.Where) })
	return found, err
}

// skipDir leaves out what go build ignores, the test peers, and modules of their own.
func skipDir(root, dir string) error {
	if dir == root {
		return nil
	}
	base := filepath.Base(dir)
	if base == "testdata" || base == "node_modules" || base == "testbed" || base[0] == '.' || base[0] == '_' {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func checkFile(root, module, name string) ([]Violation, error) {
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return nil, err
	}
	rel = filepath.ToSlash(rel)
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", rel, err)
	}
	pkg := path.Dir(rel)
	at := func(n ast.Node) string { return fmt.Sprintf("%s:%d", rel, fset.Position(n.Pos()).Line) }

	var found []Violation
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if why, bad := importBan(module, pkg, imported); bad {
			found = append(found, Violation{pkg, at(spec), "imports " + imported, why})
		}
		if imported == "time" && spec.Name != nil {
			found = append(found, Violation{pkg, at(spec), "imports time under another name", "the clock rule looks for time.Now"})
		}
	}
	if slices.Contains(passive, pkg) {
		ast.Inspect(file, func(n ast.Node) bool {
			if what, why := active(n); what != "" {
				found = append(found, Violation{pkg, at(n), what, why})
			}
			return true
		})
	}
	return found, nil
}

// importBan says whether pkg may not import imported, and why.
func importBan(module, pkg, imported string) (why string, bad bool) {
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		below, known := allowed[pkg]
		switch {
		case !known:
			return "the package is not in the map: add it to internal/arch with what it may import, or move the code", true
		case own == "internal/testnet" || strings.HasPrefix(own, "internal/testnet/") || own == "internal/arch":
			return "only tests may import it", true
		case !slices.Contains(below, own) && !slices.Contains(below, everything):
			return "imports point one way: edges > signalling > {sfu, sfu/rtc} > forward > {packet, codec}; " + pkg + " may import " + list(below), true
		}
		return "", false
	}
	for _, b := range bans {
		bound := b.in == nil || slices.Contains(b.in, pkg)
		if bound && within(imported, b.path) && imported != b.unless && !slices.Contains(b.except, pkg) {
			return b.why, true
		}
	}
	return "", false
}

// active names a statement that a passive package must not contain.
func active(n ast.Node) (what, why string) {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "starts a goroutine", "passive packages are data and methods: the caller brings the goroutine"
	case *ast.SelectorExpr:
		if id, ok := n.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
			return "reads the clock: time." + n.Sel.Name, "passive packages get now as a parameter, so that tests drive time"
		}
	}
	return "", ""
}

// within tells whether an import path is root or lies below it.
func within(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

func list(names []string) string {
	if len(names) == 0 {
		return "nothing of ours"
	}
	return strings.Join(names, ", ")
}
