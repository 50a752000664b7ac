package gate_test

import (
	"strings"
	"testing"

	"shiplog.dev/internal/gate"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, on, off string }{
		{"", "InPlaceUpdateEnvFromMetadata KruiseDaemon PodWebhook", "TemplateNoDefaults ResourcesDeletionProtection CloneSetPartitionRollback"},
		{"CloneSetPartitionRollback=true, ResourcesDeletionProtection=TRUE", "CloneSetPartitionRollback ResourcesDeletionProtection", "CloneSetShortHash"},
		{"InPlaceUpdateEnvFromMetadata=false", "KruiseDaemon", "InPlaceUpdateEnvFromMetadata"},
		// install-and-config R27
		{"AllAlpha=true", "CloneSetShortHash", "TemplateNoDefaults EnableExternalCerts EnhancedLivenessProbe ResourcesDeletionProtection"},
		{"AllAlpha=true,TemplateNoDefaults=true,CloneSetShortHash=false", "TemplateNoDefaults", "CloneSetShortHash"},
		{"AllBeta=true", "ResourcesDeletionProtection", "CloneSetShortHash"},
		{"AllBeta=false,KruiseDaemon=true", "KruiseDaemon", "PodWebhook InPlaceUpdateEnvFromMetadata"},
		// install-and-config R3 to R5
		{"PodWebhook=false,PodUnavailableBudgetUpdateGate=true", "KruiseDaemon", "PodUnavailableBudgetUpdateGate WorkloadSpread"},
		{"KruiseDaemon=false,PreDownloadImageForInPlaceUpdate=true", "", "PreDownloadImageForInPlaceUpdate ImagePullJobGate InPlaceUpdateEnvFromMetadata"},
		{"PreDownloadImageForInPlaceUpdate=true,ImagePullJobGate=false", "ImagePullJobGate", ""},
		{"DeletionProtectionForCRDCascadingGate=true", "", "DeletionProtectionForCRDCascadingGate"},
		{"DeletionProtectionForCRDCascadingGate=true,ResourcesDeletionProtection=true", "DeletionProtectionForCRDCascadingGate", ""},
	} {
		set, warnings, err := gate.Parse(c.text)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%q: %v, %v", c.text, warnings, err)
		}
		for _, name := range strings.Fields(c.on) {
			if !set.On(name) {
				t.Errorf("%q leaves %s off", c.text, name)
			}
		}
		for _, name := range strings.Fields(c.off) {
			if set.On(name) {
				t.Errorf("%q leaves %s on", c.text, name)
			}
		}
	}
}

// install-and-config R26
func TestAliasesAreTakenWithAWarning(t *testing.T) {
	set, warnings, err := gate.Parse("ForceDeleteTimeoutExpectationFeatureGate=true")
	if err != nil || len(warnings) != 1 || !set.On("ForceDeleteTimeoutExpectationGate") {
		t.Errorf("got %v, %v", warnings, err)
	}
}

func TestRefusals(t *testing.T) {
	for text, words := range map[string]string{
		"CloneSetShortHashes=true": `"CloneSetShortHashes" is not known`,
		"CloneSetShortHash":        "want NAME=true",
		"CloneSetShortHash=maybe":  "want NAME=true",
	} {
		if _, _, err := gate.Parse(text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: got %v, want %q", text, err, words)
		}
	}
}
