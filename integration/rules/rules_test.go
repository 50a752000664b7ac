// Package rules maps the numbered rules of the specs to the tests and scenarios that name them. It reads the repository's
// text and runs nothing.
package rules

import (
	"bufio"
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

//go:embed *.txt
var lists embed.FS

// root of the repository.
const root = "../.."

// homes are the directories in whose tests a number without the name of a spec means the spec of the directory's name.
var homes = map[string]string{
	"services/planner/scenario/testdata/cloneset": "cloneset",
	"services/planner/decide/cloneset":            "cloneset",
	"services/planner/decide/inplace":             "inplace-update",
	"services/planner/scenario/testdata/image":    "image-pull",
	"services/planner/scenario/testdata/restart":  "container-restart",
}

// rule is one line of a list.
type rule struct {
	id, about, reason string
	tests             []string
}

// TestEveryRuleHasATest fails for a rule that no test names and that gives no reason, and for a reason that is out of date.
// With -v it prints the table.
func TestEveryRuleHasATest(t *testing.T) {
	specs := map[string][]*rule{}
	names, err := fs.Glob(lists, "*.txt")
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]*rule{}
	for _, name := range names {
		spec := strings.TrimSuffix(name, ".txt")
		specs[spec] = readList(t, name)
		for _, one := range specs[spec] {
			byID[spec+" "+one.id] = one
		}
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if strings.HasPrefix(entry.Name(), ".") && path != root || entry.Name() == "rules" {
				return filepath.SkipDir
			}
			return nil
		}
		scenario := strings.Contains(path, "testdata") && strings.HasSuffix(path, ".txt")
		if !scenario && !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "integration/sim/") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		where, _ := filepath.Rel(root, path)
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan(); n++ {
			text := lines.Text()
			comment := strings.HasPrefix(text, "#")
			if !scenario {
				_, text, comment = strings.Cut(text, "//")
			}
			if !comment {
				continue
			}
			for _, id := range mentioned(text, homes[filepath.ToSlash(filepath.Dir(where))]) {
				if one := byID[id]; one != nil {
					one.tests = append(one.tests, fmt.Sprintf("%s:%d", where, n))
				}
			}
		}
		return lines.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range slices.Sorted(maps.Keys(specs)) {
		t.Logf("%s", spec)
		for _, one := range specs[spec] {
			shown := one.tests[:min(3, len(one.tests))]
			switch {
			case len(one.tests) == 0 && one.reason == "":
				t.Errorf("%s %s (%s) is named by no test, and no reason is given", spec, one.id, one.about)
			case len(one.tests) == 0:
				shown = []string{"not tested: " + one.reason}
			case len(one.tests) > 3:
				shown = append(slices.Clone(shown), fmt.Sprintf("and %d more", len(one.tests)-3))
			}
			t.Logf("  %-4s %-55s %s", one.id, one.about, strings.Join(shown, ", "))
		}
	}
}

func readList(t *testing.T, name string) []*rule {
	t.Helper()
	data, err := lists.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []*rule
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		id, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		about, reason, _ := strings.Cut(rest, " | ")
		out = append(out, &rule{id: id, about: strings.TrimSpace(about), reason: reason})
	}
	return out
}

var token = regexp.MustCompile(`cloneset|inplace-update|inplace|image-pull|container-restart|pod-probe|\b([RADB])([0-9]+)(?:\.[0-9]+|[a-c]\b)?(?:(?: to |-)[RADB]([0-9]+))?`)

// mentioned returns the rules that a text names, as "cloneset R26". The name of a spec holds until another one comes; before
// the first, numbers belong to the given spec, or to none.
func mentioned(text, spec string) []string {
	var out []string
	for _, match := range token.FindAllStringSubmatch(text, -1) {
		switch match[0] {
		case "cloneset", "image-pull", "container-restart", "pod-probe":
			spec = match[0]
			continue
		case "inplace-update", "inplace":
			spec = "inplace-update"
			continue
		}
		from, _ := strconv.Atoi(match[2])
		to := from
		if match[3] != "" {
			to, _ = strconv.Atoi(match[3])
		}
		for n := from; n <= to && spec != ""; n++ {
			out = append(out, fmt.Sprintf("%s %s%d", spec, match[1], n))
		}
	}
	return out
}

func TestMentioned(t *testing.T) {
	got := mentioned("inplace-update R9, R11 to R13, D5: as in cloneset R26.4", "")
	want := []string{"inplace-update R9", "inplace-update R11", "inplace-update R12", "inplace-update R13", "inplace-update D5", "cloneset R26"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
