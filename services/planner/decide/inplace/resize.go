package inplace

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"shiplog.dev/internal/world"
)

// resizable are the resources that a running container can get more or less of.
var resizable = map[string]bool{"cpu": true, "memory": true}

// resize says whether the resources of a container differ, and if they do in a way that a running Pod cannot take, why: the
// error begins with the path below resources.
func resize(before, after map[string]any, gates Gates) (bool, error) {
	if world.SameMeaning(before, after) {
		return false, nil
	}
	if !gates.Resize {
		return false, errors.New(" differ")
	}
	if field := firstDifference(before, after, "limits", "requests"); field != "" {
		return false, fmt.Errorf(".%s differs", field)
	}
	differ := false
	for _, side := range []string{"limits", "requests"} {
		old, wanted := mapAt(before, side), mapAt(after, side)
		for _, name := range sortedKeys(old) {
			if _, kept := wanted[name]; !kept {
				return false, fmt.Errorf(".%s.%s: removed", side, name)
			}
		}
		for _, name := range sortedKeys(wanted) {
			value, was := old[name]
			switch {
			case !was:
				return false, fmt.Errorf(".%s.%s: added", side, name)
			case sameAmount(world.Amount(fmt.Sprint(value)), world.Amount(fmt.Sprint(wanted[name]))):
			case !resizable[name]:
				return false, fmt.Errorf(".%s.%s differs", side, name)
			default:
				differ = true
			}
		}
	}
	return differ, nil
}

// lacking returns the amounts of cpu and memory that a container of a Pod has otherwise than wanted. Amounts that it does not
// have at all, or has without anybody wanting them, are not looked at: they cannot be added or taken away.
func lacking(container *world.Container, wanted world.Container) world.Resources {
	if container == nil {
		return world.Resources{}
	}
	return world.Resources{
		Limits:   lackingAmounts(container.Resources.Limits, wanted.Resources.Limits),
		Requests: lackingAmounts(container.Resources.Requests, wanted.Resources.Requests),
	}
}

func lackingAmounts(has, wanted world.ByName[world.Amount]) world.ByName[world.Amount] {
	var lacks world.ByName[world.Amount]
	for name, amount := range wanted.All() {
		if actual, is := has.Lookup(name); is && resizable[name] && !sameAmount(actual, amount) {
			lacks = lacks.With(name, amount)
		}
	}
	return lacks
}

// sameAmount compares quantities by value: 1 is 1000m.
func sameAmount(a, b world.Amount) bool {
	if a == b {
		return true
	}
	left, err := resource.ParseQuantity(string(a))
	if err != nil {
		return false
	}
	right, err := resource.ParseQuantity(string(b))
	return err == nil && left.Cmp(right) == 0
}

// ToResize returns what the kubelet is still to be asked for, by container: the amounts that the template of the Pod's own
// revision has for containers whose batch has come (inplace-update R30). The Pod's labels and state were written before, so a
// resize that fails, or a planner that ends in between, leaves nothing that the next decision does not see (D7).
func ToResize(pod *world.Pod, template world.Template) map[string]world.Resources {
	if pod.Update == nil || !pod.Update.UpdateResources {
		return nil
	}
	var out map[string]world.Resources
	for _, container := range resized(pod, template) {
		if lacks := lacking(containerOf(pod, container.Name), container); lacks.Limits != nil || lacks.Requests != nil {
			if out == nil {
				out = map[string]world.Resources{}
			}
			out[container.Name] = lacks
		}
	}
	return out
}

// Resized says whether the kubelet has given the containers what they were to get (inplace-update R29). Only cpu and memory of
// the containers that were changed are compared (D6).
func Resized(pod *world.Pod, template world.Template) bool {
	if pod.Update == nil || !pod.Update.UpdateResources {
		return true
	}
	for _, container := range resized(pod, template) {
		held, status := containerOf(pod, container.Name), pod.Status(container.Name)
		if held == nil || len(lackingAmounts(held.Resources.Limits, container.Resources.Limits)) > 0 ||
			len(lackingAmounts(held.Resources.Requests, container.Resources.Requests)) > 0 {
			return false
		}
		if status == nil || status.Resources == nil || len(lackingAmounts(status.Resources.Limits, held.Resources.Limits)) > 0 ||
			len(lackingAmounts(status.Resources.Requests, held.Resources.Requests)) > 0 {
			return false
		}
	}
	return true
}

// resized are the template's containers whose batch has come in an update that changes resources.
func resized(pod *world.Pod, template world.Template) []world.Container {
	var out []world.Container
	for _, tree := range listAt(mapAt(template.Tree, "spec"), "containers") {
		container := world.ReadContainer(tree)
		if _, waits := pod.Update.NextContainerResources[container.Name]; !waits && recorded(pod.Update, container.Name) {
			out = append(out, container)
		}
	}
	return out
}

// ResizeTrouble says why the kubelet does not resize a Pod, and whether it never will (D6); empty: nothing is known.
func ResizeTrouble(pod *world.Pod) (why string, never bool) {
	condition := pod.Condition("PodResizePending")
	if pod.Update == nil || !pod.Update.UpdateResources || condition.Status != "True" {
		return "", false
	}
	return fmt.Sprintf("resize is %s: %s", condition.Reason, condition.Message), condition.Reason == "Infeasible"
}

// ResizePatch is the patch of the resize subresource.
func ResizePatch(amounts map[string]world.Resources) map[string]any {
	var containers []any
	for _, name := range sortedKeys(amounts) {
		containers = append(containers, map[string]any{"name": name, "resources": amounts[name]})
	}
	return map[string]any{"spec": map[string]any{"containers": containers}}
}

// qosOf is the quality of service class that a Pod has with some amounts changed: of cpu and memory, over all containers, init
// containers too.
func qosOf(pod *world.Pod, changes map[string]world.Resources) string {
	all := append([]world.Resources(nil), pod.InitResources...)
	for _, container := range pod.Containers {
		all = append(all, container.Resources.With(changes[container.Name]))
	}
	some, guaranteed := false, true
	for _, held := range all {
		for name := range resizable { //shiplog:unordered: asks whether any
			limit, limited := held.Limits.Lookup(name)
			request, requested := held.Requests.Lookup(name)
			some = some || positive(limit) || positive(request)
			if !limited || !positive(limit) || requested && !sameAmount(limit, request) {
				guaranteed = false
			}
		}
	}
	switch {
	case !some:
		return "BestEffort"
	case guaranteed:
		return "Guaranteed"
	}
	return "Burstable"
}

func positive(amount world.Amount) bool {
	quantity, err := resource.ParseQuantity(string(amount))
	return err == nil && quantity.Sign() > 0
}
