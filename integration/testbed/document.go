package testbed

import (
	"fmt"
	"os"
	"strings"
)

// MadeEnds is the line of a document at which what is made from results ends.
const MadeEnds = "<!-- until here -->"

// WriteInto puts text, made from results, into a document in place of what stands between the line begins and MadeEnds.
func WriteInto(document, begins, text string) error {
	old, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	before, rest, has := strings.Cut(string(old), begins)
	_, after, ends := strings.Cut(rest, MadeEnds)
	if !has || !ends {
		return fmt.Errorf("%s has no place for what is made: the lines %s and %s", document, begins, MadeEnds)
	}
	return os.WriteFile(document, []byte(before+begins+"\n\n"+text+"\n"+MadeEnds+after), 0o644)
}
