package testbed

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteInto(t *testing.T) {
	const begins = "<!-- made -->"
	path := filepath.Join(t.TempDir(), "document.md")
	for old, want := range map[string]string{
		"before\n" + begins + "\nold\n" + MadeEnds + "\nafter\n": "before\n" + begins + "\n\n| new |\n\n" + MadeEnds + "\nafter\n",
		begins + MadeEnds: begins + "\n\n| new |\n\n" + MadeEnds,
		// No place: nothing is changed.
		"before\n" + begins + "\nold\n": "",
		"before\n" + MadeEnds + "\n":    "",
		MadeEnds + "\n" + begins + "\n": "",
	} {
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		err := WriteInto(path, begins, "| new |\n")
		if (err == nil) != (want != "") {
			t.Errorf("%q: %v", old, err)
		}
		if want == "" {
			want = old
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q becomes %q, want %q: %v", old, got, want, err)
		}
	}
}
