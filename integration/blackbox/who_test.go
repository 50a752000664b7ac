package blackbox

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"shiplog.dev/integration/testbed"
)

// TestWho: why names the user who edited a CloneSet, as the API server authenticated them, and an exported file does not.
func TestWho(t *testing.T) {
	namespace, stateDir := space(t), t.TempDir()
	up(t, stateDir)
	kubectl(t, cloneSet("web", 1, "app:v1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 1, "app:v1"))
	kubectl(t, "", "patch", "cloneset", "web", "-n", namespace, "--as", "alice@example.com", "--as-group", "system:masters", "--type", "merge", "-p", `{"spec":{"template":{"metadata":{"labels":{"app":"web","v":"2"}}}}}`)
	kubectl(t, "", "label", "cloneset", "web", "-n", namespace, "--as", "mallory@example.com", "--as-group", "system:masters", "owner=nobody")
	pod := pods(t, namespace, "web")[0].Name
	var told string
	testbed.Eventually(t, time.Minute, func() (err error) {
		if told, err = testbed.Output("why", "cloneset/web", "-n", namespace, "--log", stateDir); err == nil && !strings.Contains(told, "edited by alice@example.com with kubectl-patch") {
			err = errNot("why", told, "alice")
		}
		return err
	})
	if strings.Contains(told, "mallory") {
		t.Errorf("who only changed a label is named:\n%s", told)
	}
	testbed.Eventually(t, time.Minute, func() error {
		chain, err := testbed.Output("why", "pod/"+pod, "-n", namespace, "--log", stateDir)
		if err == nil && (!regexp.MustCompile(`asked +cloneset/web is created by \S+ with kubectl`).MatchString(chain) || !regexp.MustCompile(`asked +cloneset/web is edited by alice`).MatchString(chain)) {
			err = errNot("why", chain, "alice asks for the update, somebody else for the creation")
		}
		return err
	})
	file := filepath.Join(t.TempDir(), "who.shiplog")
	if _, err := testbed.Output("export", file, "--log", stateDir); err != nil {
		t.Fatal(err)
	}
	hidden, err := testbed.Output("why", "cloneset/web", "-n", namespace, "--log", file)
	if err != nil || strings.Contains(hidden, "alice") || !regexp.MustCompile(`edited by user-[0-9a-f]{12} with kubectl-patch`).MatchString(hidden) {
		t.Errorf("the file tells\n%s\n%v", hidden, err)
	}
	if out, err := testbed.Output("replay", "--log", file); err != nil {
		t.Errorf("the file does not replay: %v\n%s", err, out)
	}
}
