package world_test

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// pure are the packages whose answers may depend on nothing but their arguments.
var pure = []string{
	"shiplog.dev/internal/world",
	"shiplog.dev/services/planner/decide/...",
	"shiplog.dev/services/planner/rollout",
	"shiplog.dev/services/planner/rules",
}

// forbidden imports, and why. A trailing slash forbids everything below.
var forbidden = map[string]string{
	"os":           "reads the machine",
	"os/":          "reads the machine",
	"net":          "talks to the network",
	"net/":         "talks to the network",
	"log":          "writes",
	"log/":         "writes",
	"sync":         "there is one goroutine",
	"math/rand":    "is random",
	"math/rand/v2": "is random",
	"crypto/rand":  "is random",
	"context":      "nothing here waits",
}

// forbiddenDeep may not be reached even through other packages.
var forbiddenDeep = []string{"k8s.io/client-go/", "github.com/nats-io/"}

// clock are the functions of package time that ask the clock or wait.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// unordered marks a range over a map whose order cannot show in the result; the rest of the line says why.
const unordered = "//shiplog:unordered: "

// TestPurity: no clock, randomness, I/O, goroutine, channel or map order in the world and the rules.
func TestPurity(t *testing.T) {
	for _, pkg := range load(t, packages.NeedName|packages.NeedImports|packages.NeedDeps) {
		for path := range pkg.Imports {
			for prefix, why := range forbidden {
				if path == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(path, prefix) {
					t.Errorf("%s imports %s, which %s", pkg.PkgPath, path, why)
				}
			}
		}
		packages.Visit([]*packages.Package{pkg}, nil, func(deep *packages.Package) {
			for _, prefix := range forbiddenDeep {
				if strings.HasPrefix(deep.PkgPath, prefix) {
					t.Errorf("%s reaches %s", pkg.PkgPath, deep.PkgPath)
				}
			}
		})
	}
	for _, pkg := range load(t, packages.NeedName|packages.NeedImports|packages.NeedSyntax|packages.NeedTypes|packages.NeedTypesInfo) {
		for _, file := range pkg.Syntax {
			inspect(t, pkg, file)
		}
	}
}

func load(t *testing.T, mode packages.LoadMode) []*packages.Package {
	t.Helper()
	loaded, err := packages.Load(&packages.Config{Mode: mode}, pure...)
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded) < 4 {
		t.Fatalf("only %d packages found under %v", len(loaded), pure)
	}
	for _, pkg := range loaded {
		if len(pkg.Errors) > 0 {
			t.Fatalf("%s: %v", pkg.PkgPath, pkg.Errors)
		}
	}
	return loaded
}

func inspect(t *testing.T, pkg *packages.Package, file *ast.File) {
	excused := map[int]bool{}
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if strings.HasPrefix(comment.Text, unordered) {
				excused[pkg.Fset.Position(comment.Pos()).Line] = true
			}
		}
	}
	ast.Inspect(file, func(node ast.Node) bool {
		report := func(what string) { t.Errorf("%s: %s", pkg.Fset.Position(node.Pos()), what) }
		switch node := node.(type) {
		case *ast.GoStmt:
			report("starts a goroutine")
		case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
			report("uses a channel")
		case *ast.RangeStmt:
			if _, isMap := pkg.TypesInfo.TypeOf(node.X).Underlying().(*types.Map); isMap && !excused[pkg.Fset.Position(node.Pos()).Line] {
				report("ranges over a map; sort the keys first, or say why order cannot show with " + unordered)
			}
		case *ast.SelectorExpr:
			if used, is := pkg.TypesInfo.Uses[node.Sel].(*types.Func); is && used.Pkg() != nil && used.Pkg().Path() == "time" &&
				used.Signature().Recv() == nil && slices.Contains(clock, used.Name()) {
				report("asks the clock: time." + used.Name())
			}
		}
		return true
	})
}
