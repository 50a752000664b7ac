package cloneset

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
)

// spec is a CloneSet's spec with defaults filled in and percentages worked out against its replicas.
type spec struct {
	replicas         int
	selector         labels.Selector
	onDelete         bool // Pods are updated by whoever deletes them
	policy           v1beta1.CloneSetPodUpdatePolicy
	partition        int // R23
	maxUnavailable   int // R21
	maxSurge         int // R20
	scaleUnavailable int // R21; math.MaxInt: unlimited
	paused           bool
	minReadySeconds  int32
	historyLimit     int
	exclude          bool // R22
	specifiedDelete  map[string]bool
	claims           []map[string]any // claim templates
	reuseClaims      bool             // R29
	lifecycle        *v1beta1.Lifecycle
	graceSeconds     int32
	priority         *v1beta1.UpdatePriorityStrategy
	scatter          v1beta1.UpdateScatterStrategy
}

// hooks of the lifecycle; nil: there is no such hook.
func (s *spec) preNormal() *v1beta1.LifecycleHook {
	if s.lifecycle == nil {
		return nil
	}
	return s.lifecycle.PreNormal
}

func (s *spec) inPlaceUpdate() *v1beta1.LifecycleHook {
	if s.lifecycle == nil {
		return nil
	}
	return s.lifecycle.InPlaceUpdate
}

func (s *spec) preDelete() *v1beta1.LifecycleHook {
	if s.lifecycle == nil {
		return nil
	}
	return s.lifecycle.PreDelete
}

// readSpec reads the spec of a CloneSet, or says why it cannot be acted on, field first.
func readSpec(set *world.CloneSet) (spec, string) {
	if set.Malformed != "" {
		return spec{}, set.Malformed
	}
	in := &set.Spec
	rolling := &in.UpdateStrategy.RollingUpdate
	out := spec{
		replicas: 1, paused: rolling.Paused, policy: rolling.PodUpdatePolicy, minReadySeconds: in.MinReadySeconds,
		historyLimit: 10, scaleUnavailable: math.MaxInt, specifiedDelete: map[string]bool{},
		onDelete: in.UpdateStrategy.Type == v1beta1.OnDeleteCloneSetUpdateStrategyType, exclude: in.ScaleStrategy.ExcludePreparingDelete,
		claims: set.Claims, reuseClaims: in.ScaleStrategy.EnablePVCReuse, lifecycle: in.Lifecycle,
		priority: rolling.PriorityStrategy, scatter: rolling.ScatterStrategy,
	}
	if strategy := rolling.InPlaceUpdateStrategy; strategy != nil {
		out.graceSeconds = strategy.GracePeriodSeconds
	}
	if in.Replicas != nil {
		out.replicas = int(*in.Replicas)
	}
	if in.RevisionHistoryLimit != nil {
		out.historyLimit = int(*in.RevisionHistoryLimit)
	}
	for _, name := range in.ScaleStrategy.PodsToDelete {
		out.specifiedDelete[name] = true
	}
	if out.onDelete || out.policy == "" {
		out.policy = v1beta1.RecreateCloneSetPodUpdatePolicy
	}
	var err error
	if out.selector, err = metav1.LabelSelectorAsSelector(in.Selector); err != nil {
		return spec{}, "spec.selector: " + err.Error()
	}
	if out.selector.Empty() {
		return spec{}, "spec.selector: is empty and would select every Pod"
	}
	if !out.selector.Matches(labels.Set(in.Template.Labels)) {
		return spec{}, fmt.Sprintf("spec.template.metadata.labels: do not match spec.selector %q", out.selector)
	}
	if len(in.Template.Spec.Containers) == 0 {
		return spec{}, "spec.template.spec.containers: is empty"
	}
	for i, claim := range out.claims {
		if claimName(claim) == "" {
			return spec{}, fmt.Sprintf("spec.volumeClaimTemplates[%d].metadata.name: is empty", i)
		}
	}
	surge, unavailable, up, partition := 0, 0, 0, 0
	fields := []struct {
		name    string
		value   *intstr.IntOrString
		unset   string
		roundUp func() bool
		into    *int
	}{
		{"updateStrategy.rollingUpdate.maxSurge", rolling.MaxSurge, "0", func() bool { return true }, &surge},
		{"updateStrategy.rollingUpdate.maxUnavailable", rolling.MaxUnavailable, v1beta1.DefaultCloneSetMaxUnavailable, func() bool { return surge == 0 || out.paused }, &unavailable},
		{"scaleStrategy.maxUnavailable", in.ScaleStrategy.MaxUnavailable, "100%", func() bool { return true }, &up},
		{"updateStrategy.rollingUpdate.partition", rolling.Partition, "0", func() bool { return true }, &partition},
	}
	for _, field := range fields {
		value := intstr.Parse(field.unset)
		if field.value != nil {
			value = *field.value
		}
		if *field.into, err = scaled(value, out.replicas, field.roundUp()); err != nil {
			return spec{}, "spec." + field.name + ": " + err.Error()
		}
	}
	if !out.paused {
		out.maxSurge = surge
	}
	out.maxUnavailable = unavailable
	if in.ScaleStrategy.MaxUnavailable != nil {
		out.scaleUnavailable = up
	}
	if value := rolling.Partition; value != nil && value.Type == intstr.String && out.replicas > 1 && partition >= out.replicas && percentOf(*value) < 100 {
		partition = out.replicas - 1
	}
	out.partition = min(max(partition, 0), out.replicas)
	return out, ""
}

// scaled works out a count or percentage of total; decimals are allowed (D9).
func scaled(value intstr.IntOrString, total int, roundUp bool) (int, error) {
	if value.Type == intstr.Int {
		if value.IntVal < 0 {
			return 0, fmt.Errorf("%d is negative", value.IntVal)
		}
		return int(value.IntVal), nil
	}
	percent := percentOf(value)
	if math.IsNaN(percent) || percent < 0 {
		return 0, fmt.Errorf("%q is neither a count nor a percentage such as 20%%", value.StrVal)
	}
	// The tiny slack keeps 33.3% of 1000 from becoming 334 by the way binary fractions are stored.
	share, slack := percent*float64(total)/100, 1e-9
	if roundUp {
		return int(math.Ceil(share - slack)), nil
	}
	return int(math.Floor(share + slack)), nil
}

// percentOf reads "33.3%"; NaN when it is none.
func percentOf(value intstr.IntOrString) float64 {
	number, is := strings.CutSuffix(value.StrVal, "%")
	percent, err := strconv.ParseFloat(number, 64)
	if !is || err != nil || math.IsInf(percent, 0) {
		return math.NaN()
	}
	return percent
}
