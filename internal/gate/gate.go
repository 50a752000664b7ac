// Package gate reads feature gates: OpenKruise's names, defaults and syntax (install-and-config 3). What a gate changes is
// decided where it is asked for; whether it is on stands in the planner's fence, so that replay knows it. It is pure.
package gate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Gates that something asks for.
const (
	CloneSetPartitionRollback         = "CloneSetPartitionRollback"
	CloneSetShortHash                 = "CloneSetShortHash"
	InPlaceUpdateEnvFromMetadata      = "InPlaceUpdateEnvFromMetadata"
	InPlaceWorkloadVerticalScaling    = "InPlaceWorkloadVerticalScaling"
	PodUnavailableBudgetUpdateGate    = "PodUnavailableBudgetUpdateGate"
	PreDownloadImageForInPlaceUpdate  = "PreDownloadImageForInPlaceUpdate"
	PreparingUpdateAsUpdate           = "PreparingUpdateAsUpdate"
	RecreatePodWhenChangeVCT          = "RecreatePodWhenChangeVCTInCloneSetGate"
	ResourcesDeletionProtection       = "ResourcesDeletionProtection"
	TemplateNoDefaults                = "TemplateNoDefaults"
	DeletionProtectionForCRDCascading = "DeletionProtectionForCRDCascadingGate"
	ImagePullJob                      = "ImagePullJobGate"
	KruiseDaemon                      = "KruiseDaemon"
	PodWebhook                        = "PodWebhook"
)

const (
	allAlpha = "AllAlpha"
	allBeta  = "AllBeta"
)

type definition struct{ beta, on bool }

var (
	alphaOff = definition{}
	betaOff  = definition{beta: true}
	betaOn   = definition{beta: true, on: true}
)

// known are the gates of OpenKruise 1.9 and of its 2.0 line, with their defaults.
var known = map[string]definition{
	PodWebhook:                                  betaOn,
	KruiseDaemon:                                betaOn,
	"DaemonWatchingPod":                         betaOn,
	CloneSetShortHash:                           alphaOff,
	"KruisePodReadinessGate":                    alphaOff,
	PreDownloadImageForInPlaceUpdate:            alphaOff,
	"PreDownloadImageForDaemonSetUpdate":        alphaOff,
	CloneSetPartitionRollback:                   alphaOff,
	ResourcesDeletionProtection:                 betaOff,
	DeletionProtectionForCRDCascading:           alphaOff,
	"WorkloadSpread":                            betaOn,
	"PodUnavailableBudgetDeleteGate":            betaOn,
	PodUnavailableBudgetUpdateGate:              alphaOff,
	TemplateNoDefaults:                          alphaOff,
	InPlaceUpdateEnvFromMetadata:                betaOn,
	"StatefulSetAutoDeletePVC":                  betaOn,
	"StatefulSetAutoResizePVCGate":              alphaOff,
	"StatefulSetStartOrdinal":                   alphaOff,
	"PodIndexLabel":                             betaOn,
	"SidecarSetPatchPodMetadataDefaultsAllowed": alphaOff,
	"SidecarTerminator":                         alphaOff,
	"EnableSortSidecarContainerByName":          alphaOff,
	"PodProbeMarkerGate":                        betaOn,
	"EnablePodProbeMarkerOnServerless":          alphaOff,
	"EnhancedLivenessProbe":                     alphaOff,
	"CloneSetEventHandlerOptimization":          alphaOff,
	PreparingUpdateAsUpdate:                     alphaOff,
	RecreatePodWhenChangeVCT:                    alphaOff,
	ImagePullJob:                                alphaOff,
	"ResourceDistributionGate":                  alphaOff,
	"ForceDeleteTimeoutExpectationGate":         alphaOff,
	InPlaceWorkloadVerticalScaling:              alphaOff,
	"InPlacePodVerticalScaling":                 alphaOff,
	"EnableExternalCerts":                       alphaOff,
	"DefaultHostNetworkHostPortsInPodTemplates": alphaOff,
	"DaemonSetPruneIneligibleNodes":             alphaOff,
}

// aliases are names that documentation uses by mistake (R26).
var aliases = map[string]string{
	"EnhancedLivenessProbeGate":                "EnhancedLivenessProbe",
	"ForceDeleteTimeoutExpectationFeatureGate": "ForceDeleteTimeoutExpectationGate",
}

// notByStage are gates that AllAlpha leaves alone: who asks for everything new does not ask for these (R27).
var notByStage = []string{"EnableExternalCerts", TemplateNoDefaults, "EnhancedLivenessProbe"}

// follows says what the state of one gate makes of others (R3 to R5), in this order.
var follows = []struct {
	when   string
	is     bool
	then   bool
	others []string
}{
	{PodWebhook, false, false, []string{"KruisePodReadinessGate", "PodUnavailableBudgetDeleteGate", PodUnavailableBudgetUpdateGate, "WorkloadSpread",
		"SidecarSetPatchPodMetadataDefaultsAllowed", "EnhancedLivenessProbe", "EnablePodProbeMarkerOnServerless"}},
	{KruiseDaemon, false, false, []string{PreDownloadImageForInPlaceUpdate, "DaemonWatchingPod", InPlaceUpdateEnvFromMetadata,
		"PreDownloadImageForDaemonSetUpdate", "PodProbeMarkerGate", "SidecarTerminator", ImagePullJob, "EnhancedLivenessProbe"}},
	{PreDownloadImageForInPlaceUpdate, true, true, []string{ImagePullJob}},
	{"PreDownloadImageForDaemonSetUpdate", true, true, []string{ImagePullJob}},
	{ResourcesDeletionProtection, false, false, []string{DeletionProtectionForCRDCascading}},
}

// Set says of each gate whether it is on. The zero value has all of them off.
type Set map[string]bool

// On says whether a gate is on.
func (s Set) On(name string) bool { return s[name] }

// Default is the set of a process that was given no gates.
func Default() Set {
	set, _, _ := Parse("")
	return set
}

// Parse reads "Name=true,Other=false". Gates not named are as by default, or as AllAlpha and AllBeta say. Warnings are
// about names that only look right. An error names the part that is no gate or no boolean.
func Parse(text string) (Set, []string, error) {
	named, warnings := map[string]bool{}, []string(nil)
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		on, err := strconv.ParseBool(strings.TrimSpace(value))
		if err != nil {
			return nil, nil, fmt.Errorf("feature gate %q: want NAME=true or NAME=false", part)
		}
		if real, is := aliases[name]; is {
			warnings = append(warnings, fmt.Sprintf("feature gate %s is called %s", name, real))
			name = real
		}
		if _, is := known[name]; !is && name != allAlpha && name != allBeta {
			return nil, nil, fmt.Errorf("feature gate %q is not known; known are: %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		named[name] = on
	}
	set := Set{}
	for name, gate := range known {
		set[name] = gate.on
		stage := allAlpha
		if gate.beta {
			stage = allBeta
		}
		if on, is := named[stage]; is && !(on && slices.Contains(notByStage, name)) {
			set[name] = on
		}
		if on, is := named[name]; is {
			set[name] = on
		}
	}
	for _, f := range follows {
		if set[f.when] == f.is {
			for _, other := range f.others {
				set[other] = f.then
			}
		}
	}
	return set, warnings, nil
}
