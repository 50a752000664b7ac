package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What documents show of the tools is what the tools say: every line, in order, is one of the output, or its beginning; others may be left out,
// if "..." or a remark in prose says so. The width of columns and how long the tool took may differ.
func TestDocumentsShowWhatToolsSay(t *testing.T) {
	time.Local = time.UTC
	t.Chdir(filepath.Join("..", ".."))
	for document, least := range map[string]int{"docs/postmortem.md": 8, "docs/incidents.md": 20} {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		log, shown := "", 0
		for _, block := range blocks(string(text)) {
			if found := regexp.MustCompile(`SHIPLOG_LOG=(\S+)`).FindStringSubmatch(block[0]); found != nil {
				log = found[1]
			}
			command, is := strings.CutPrefix(block[0], "$ shiplog ")
			if !is {
				continue
			}
			shown++
			arguments := strings.Fields(command)
			section := block[len(block)-1]
			block = block[:len(block)-1]
			if document == "docs/incidents.md" {
				log = filepath.Join("integration", "histories", section+".shiplog")
			}
			for i, argument := range arguments {
				if argument == "--html" {
					arguments[i+1] = filepath.Join(t.TempDir(), arguments[i+1])
				}
			}
			out, err := run(t, append(arguments, "--log", log)...)
			if err != nil {
				t.Errorf("%s: shiplog %s: %v", document, command, err)
			}
			rest := strings.Split(out, "\n")
			for _, line := range block[1:] {
				if line == "" || line == "..." {
					continue
				}
				at := 0
				for at < len(rest) && !strings.HasPrefix(same(rest[at]), same(line)) {
					at++
				}
				if at == len(rest) {
					t.Errorf("%s: shiplog %s does not say %q there, but\n%s", document, command, line, out)
					break
				}
				rest = rest[at+1:]
			}
		}
		if shown < least {
			t.Errorf("%s shows %d commands: it is not as this test reads it", document, shown)
		}
	}
}

// blocks are the indented blocks of a document, cut where a command begins; the last line of each names the section that it is in.
func blocks(text string) (out [][]string) {
	section := ""
	var block []string
	end := func() {
		if len(block) > 0 {
			out = append(out, append(block, section))
		}
		block = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		inside, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented && strings.HasPrefix(inside, "$ "):
			end()
			block = []string{inside}
		case indented:
			block = append(block, inside)
		case line == "":
			if len(block) > 0 {
				block = append(block, "")
			}
		default:
			end()
			if heading, is := strings.CutPrefix(line, "## "); is {
				section = heading
			}
		}
	}
	end()
	return out
}

var took = regexp.MustCompile(`in \d+(\.\d+)?ms`)

// same is a line without what may differ.
func same(line string) string {
	return took.ReplaceAllString(strings.Join(strings.Fields(line), " "), "in 0ms")
}
