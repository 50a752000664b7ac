package nodeagent

import (
	"os"
	"path/filepath"
	"testing"

	"shiplog.dev/services/nodeagent/cri"
)

// TestFind: of several files, the first at which a runtime answers (image-pull R38).
func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, second := startFake(t, "v2.1.0"), startFake(t, "v2.1.0")
	if found := cri.Find(t.Context(), []string{filepath.Join(dir, "absent"), plain, f.socket, second.socket}); found != f.endpoint() {
		t.Errorf("found %q", found)
	}
	if found := cri.Find(t.Context(), []string{plain}); found != "" {
		t.Errorf("found %q", found)
	}
}
