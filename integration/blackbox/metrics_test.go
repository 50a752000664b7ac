package blackbox

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"shiplog.dev/integration/testbed"
)

// TestMetrics: a Shiplog that has done all of its work exports the metrics that docs/metrics.md names, with those labels, and no
// others; that dashboards ask for nothing else is a test of deploy/dashboards.
func TestMetrics(t *testing.T) {
	namespace := space(t)
	node, endpoint := realNode(t)
	service := up(t, t.TempDir(), "--nodeagent", node+"="+endpoint, "--feature-gates", "ResourcesDeletionProtection=true")
	manifest := cloneSet("web", 2, "app:v1", "true", inPlace)
	kubectl(t, manifest, "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 2, "app:v1"))
	kubectl(t, "", "label", "cloneset", "web", "-n", namespace, "policy.kruise.io/delete-protection=Always")
	if out, err := cluster.Kubectl(t.Context(), "", "delete", "cloneset", "web", "-n", namespace); err == nil {
		t.Fatalf("a protected CloneSet is deleted: %s", out)
	}
	kubectl(t, "", "label", "cloneset", "web", "-n", namespace, "policy.kruise.io/delete-protection-")
	testbed.Eventually(t, time.Minute, func() error {
		exported := exportedBy(t, service)
		var problems []string
		documented := documentedMetrics(t)
		for name, labels := range documented {
			if got, is := exported[name]; !is && labels.rare {
				continue
			} else if !is {
				problems = append(problems, name+" is documented and not exported")
			} else if !slices.Equal(got, labels.names) {
				problems = append(problems, fmt.Sprintf("%s has the labels %v, documented are %v", name, got, labels.names))
			}
		}
		for name := range exported {
			if _, is := documented[name]; !is {
				problems = append(problems, name+" is exported and not documented")
			}
		}
		slices.Sort(problems)
		if len(problems) > 0 {
			return fmt.Errorf("docs/metrics.md:\n%s", strings.Join(problems, "\n"))
		}
		return nil
	})
}

// documentedLabels are those of a metric; a rare one is not exported before what it counts has happened.
type documentedLabels struct {
	names []string
	rare  bool
}

// documentedMetrics returns the labels of the metrics that docs/metrics.md names.
func documentedMetrics(t *testing.T) map[string]documentedLabels {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]documentedLabels{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (?:gauge|counter|histogram) \\| ([^|]*)\\| ([^|]*)").FindAllStringSubmatch(string(text), -1) {
		labels := regexp.MustCompile("[a-z_]+").FindAllString(row[2], -1)
		slices.Sort(labels)
		out[row[1]] = documentedLabels{labels, strings.Contains(row[3], "not before the first")}
	}
	return out
}

// exportedBy returns the labels of the metrics that a process exports, but for those of Go and of the process.
func exportedBy(t *testing.T, p *testbed.Process) map[string][]string {
	t.Helper()
	response, err := http.Get("http://" + p.Listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, kind := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		name := kind[1]
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		out[name] = nil
		sample := regexp.MustCompile(`(?m)^` + name + `(?:_count)?\{([^}]*)\} `).FindStringSubmatch(string(text))
		if sample == nil {
			continue
		}
		for _, label := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(sample[1], -1) {
			out[name] = append(out[name], label[1])
		}
		slices.Sort(out[name])
	}
	return out
}
