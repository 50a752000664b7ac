// Package dashboards holds Grafana dashboards over the metrics that docs/metrics.md names.
package dashboards

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// metric is a row of docs/metrics.md.
type metric struct {
	kind   string
	labels []string
}

var row = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (gauge|counter|histogram) \\| ([^|]*)\\| ")

// documented are the metrics of docs/metrics.md, by name.
func documented(t *testing.T) map[string]metric {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]metric{"process_resident_memory_bytes": {kind: "gauge"}, "process_cpu_seconds_total": {kind: "counter"}}
	for _, found := range row.FindAllStringSubmatch(string(text), -1) {
		out[found[1]] = metric{found[2], regexp.MustCompile("[a-z_]+").FindAllString(found[3], -1)}
	}
	if len(out) < 20 {
		t.Fatalf("docs/metrics.md names %d metrics: its tables are not as this test reads them", len(out))
	}
	return out
}

// Every query is PromQL over metrics and labels that are documented; that these are exported is a test of a running Shiplog
// (integration/blackbox).
func TestDashboardsAskForWhatThereIs(t *testing.T) {
	paths, err := filepath.Glob("*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	metrics := documented(t)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Title  string
			Panels []struct {
				ID      int
				Type    string
				Title   string
				GridPos struct{ X, Y, W, H int }
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(data, &dashboard); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		asked := map[string]bool{}
		ids := map[int]bool{}
		for _, panel := range dashboard.Panels {
			if ids[panel.ID] {
				t.Errorf("%s: two panels have id %d", path, panel.ID)
			}
			ids[panel.ID] = true
			if place := panel.GridPos; place.X+place.W > 24 || place.W <= 0 || place.H <= 0 {
				t.Errorf("%s, %q: does not fit into the grid: %+v", path, panel.Title, place)
			}
			if panel.Type != "row" && len(panel.Targets) == 0 {
				t.Errorf("%s, %q: asks for nothing", path, panel.Title)
			}
			for _, target := range panel.Targets {
				if err := ask(target.Expr, metrics, asked); err != nil {
					t.Errorf("%s, %q: %v", path, panel.Title, err)
				}
			}
		}
		for name := range metrics {
			if !asked[name] && !strings.HasPrefix(name, "shiplog_nodeagent_") && name != "kruise_manager_is_leader" {
				t.Errorf("%s shows nothing of %s", path, name)
			}
		}
	}
}

// ask reads one query.
func ask(query string, metrics map[string]metric, asked map[string]bool) error {
	expression, err := parser.ParseExpr(strings.ReplaceAll(query, "$__rate_interval", "5m"))
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	var problem error
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		var labels []string
		switch node := node.(type) {
		case *parser.VectorSelector:
			name := baseOf(node.Name, metrics)
			known, is := metrics[name]
			if !is {
				problem = fmt.Errorf("%s: %s is not documented", query, node.Name)
				return nil
			}
			asked[name] = true
			for _, matcher := range node.LabelMatchers {
				if label := matcher.Name; label != "__name__" && label != "job" && !slices.Contains(known.labels, label) {
					problem = fmt.Errorf("%s: %s has no label %q", query, name, label)
				}
			}
		case *parser.AggregateExpr:
			labels = node.Grouping
		}
		for _, label := range labels {
			if label != "le" && !slices.ContainsFunc(mentioned(node, metrics), func(m metric) bool { return slices.Contains(m.labels, label) }) {
				problem = fmt.Errorf("%s: nothing in it has the label %q", query, label)
			}
		}
		return nil
	})
	return problem
}

// baseOf is the name of the metric that a series belongs to: a histogram has three kinds of them.
func baseOf(series string, metrics map[string]metric) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(series, suffix); cut && metrics[base].kind == "histogram" {
			return base
		}
	}
	return series
}

// mentioned are the metrics below a part of a query.
func mentioned(node parser.Node, metrics map[string]metric) (out []metric) {
	parser.Inspect(node, func(below parser.Node, _ []parser.Node) error {
		if selector, is := below.(*parser.VectorSelector); is {
			out = append(out, metrics[baseOf(selector.Name, metrics)])
		}
		return nil
	})
	return out
}
