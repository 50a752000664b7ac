package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

// state shows objects as they were.
func state() *cobra.Command {
	var read reading
	var at, selector string
	command := &cobra.Command{
		Use: "state [KIND[/NAME]]", Short: "Show objects as they were at a moment",
		Long: `Show an object as it was at a moment, as YAML, or all objects of a namespace, of one kind or of every kind that Shiplog
watches, as a table. An object is shown as the API server showed it, without managedFields.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog state cloneset/web --at 14:03
  shiplog state pods -n shop --at -2h
  shiplog state -A --at 1234 -o yaml
  shiplog state pods -l app=web --at 14:03 -o json | jq '.items[].spec.nodeName'`,
		RunE: func(command *cobra.Command, arguments []string) error {
			chosen, one, err := read.choose(arguments, selector)
			if err != nil {
				return err
			}
			log, err := read.open(command.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			moment, err := log.moment("at", at)
			if err != nil {
				return err
			}
			objects, err := log.objectsAt(command, moment)
			if err != nil {
				return err
			}
			found := objects.choose(chosen)
			if len(found) == 0 {
				return nothing{fmt.Errorf("the log of %s has no such object at that moment", read.where)}
			}
			out := command.OutOrStdout()
			if one {
				return printObject(out, found[0], read.output, objects)
			}
			return printObjects(out, found, read.output, objects, chosen.namespace == "")
		},
	}
	read.bind(command, "yaml", "json", "wide")
	read.bindAll(command.Flags())
	command.Flags().StringVar(&at, "at", "", "as of this `MOMENT`; default: the end of the log")
	command.Flags().StringVarP(&selector, "selector", "l", "", "only objects with these `LABELS`")
	command.ValidArgsFunction = read.completeObjects("cloneset", "pod")
	return command
}

// diff compares objects at two moments.
func diff() *cobra.Command {
	var read reading
	var from, to, selector string
	var withStatus bool
	command := &cobra.Command{
		Use: "diff [KIND[/NAME]] --from MOMENT [--to MOMENT]", Short: "Show what differs between two moments",
		Long: `Show which fields of which objects differ between two moments, and which objects came and went. Without an object: all of a
namespace. Status is left out unless --status asks for it.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog diff cloneset/web --from 14:00 --to 14:10
  shiplog diff pods -n shop --from -10m --status
  shiplog diff --from 1200 --to 1300 -o json`,
		RunE: func(command *cobra.Command, arguments []string) error {
			chosen, _, err := read.choose(arguments, selector)
			if err != nil {
				return err
			}
			if from == "" {
				return process.Usage(fmt.Errorf("--from is required: %s", history.Forms))
			}
			log, err := read.open(command.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			span, err := log.span("from", from, "to", to)
			if err != nil {
				return err
			}
			before, err := log.objectsAt(command, span.From)
			if err != nil {
				return err
			}
			after, err := log.objectsAt(command, span.To)
			if err != nil {
				return err
			}
			changes, err := compare(before.choose(chosen), after.choose(chosen), withStatus)
			if err != nil {
				return err
			}
			out := command.OutOrStdout()
			if read.output != "" {
				return print(out, read.output, changes)
			}
			fmt.Fprintf(out, "from %d at %s to %d at %s\n", before.sequence, before.time.Local().Format(time.DateTime), after.sequence, after.time.Local().Format(time.DateTime))
			printChanges(out, changes)
			return nil
		},
	}
	read.bind(command, "json", "yaml")
	read.bindAll(command.Flags())
	command.Flags().StringVar(&from, "from", "", "the earlier `MOMENT`")
	command.Flags().StringVar(&to, "to", "", "the later `MOMENT`; default: the end of the log")
	command.Flags().StringVarP(&selector, "selector", "l", "", "only objects with these `LABELS`")
	command.Flags().BoolVar(&withStatus, "status", false, "compare status too")
	command.ValidArgsFunction = read.completeObjects("cloneset", "pod")
	return command
}

// choice is what of the objects is shown.
type choice struct {
	kinds           []history.Kind
	namespace, name string
	labels          labels.Selector
}

func (r *reading) choose(arguments []string, selector string) (out choice, one bool, err error) {
	if out.labels, err = labels.Parse(selector); err != nil {
		return out, false, process.Usage(fmt.Errorf("--selector: %w", err))
	}
	if !r.allNamespaces {
		out.namespace = r.inNamespace()
	}
	if len(arguments) > 2 {
		return out, false, process.Usage(fmt.Errorf("unexpected argument %q", arguments[2]))
	}
	if len(arguments) == 0 {
		return out, false, nil
	}
	kinds, name, _ := strings.Cut(arguments[0], "/")
	if len(arguments) == 2 {
		name = arguments[1]
	}
	for kind := range strings.SplitSeq(kinds, ",") {
		found := history.FindKind(kind)
		out.kinds = append(out.kinds, found)
		if found.Cluster {
			out.namespace = ""
		}
	}
	out.name = name
	return out, name != "", nil
}

// objectsAt are all objects at a moment.
type objectsAt struct {
	*history.Objects
	sequence uint64
	time     time.Time
}

func (o *opened) objectsAt(command *cobra.Command, at history.Moment) (*objectsAt, error) {
	out := &objectsAt{Objects: history.NewObjects()}
	err := o.Each(command.Context(), history.Span{Past: true, To: at}, func(record journal.Record) error {
		out.sequence, out.time = record.Sequence, record.Time
		out.Show(record)
		return nil
	})
	return out, err
}

func (o *objectsAt) choose(c choice) []*history.Object {
	return slices.DeleteFunc(o.All(), func(object *history.Object) bool {
		return c.namespace != "" && object.Ref.Namespace != c.namespace || c.name != "" && object.Ref.Name != c.name ||
			len(c.kinds) > 0 && !slices.ContainsFunc(c.kinds, func(kind history.Kind) bool { return kind.Has(object.Ref) }) ||
			!c.labels.Empty() && !c.labels.Matches(history.Labels(object.JSON))
	})
}

// printObject writes one object with a line that says where it comes from.
func printObject(out io.Writer, object *history.Object, format string, at *objectsAt) error {
	var value any
	if err := json.Unmarshal(object.JSON, &value); err != nil {
		return fmt.Errorf("read %s: %w", object.Ref, err)
	}
	if format == "json" {
		return print(out, format, value)
	}
	who := ""
	if manager := narrate.Who(object.LastChange); manager != "" {
		who = ", last changed by " + manager
	}
	fmt.Fprintf(out, "# as of position %d, %s: version %d, observed at position %d, %s%s\n", at.sequence, at.time.Local().Format(time.DateTime), object.Version,
		object.Sequence, object.Time.Local().Format(time.DateTime), who)
	data, err := yaml.JSONToYAML(object.JSON)
	if err == nil {
		_, err = out.Write(data)
	}
	return err
}

func printObjects(out io.Writer, objects []*history.Object, format string, at *objectsAt, namespaces bool) error {
	wide := format == "wide"
	if format != "" && !wide {
		items := make([]json.RawMessage, len(objects))
		for i, object := range objects {
			items[i] = object.JSON
		}
		return print(out, format, struct {
			APIVersion string            `json:"apiVersion"`
			Kind       string            `json:"kind"`
			Items      []json.RawMessage `json:"items"`
		}{"v1", "List", items})
	}
	fmt.Fprintf(out, "as of position %d, %s\n", at.sequence, at.time.Local().Format(time.DateTime))
	head := []string{"NAME", "STATE", "IMAGES", "AGE", "POSITION"}
	if wide {
		head = append(head, "NODE", "LAST CHANGED BY")
	}
	if namespaces {
		head = append([]string{"NAMESPACE"}, head...)
	}
	rows := [][]string{head}
	for _, object := range objects {
		state, images, created := summary(object)
		row := []string{history.FindKind(object.Ref.Resource).Singular + "/" + object.Ref.Name, state, images,
			narrate.Duration(at.time.Sub(created)), strconv.FormatUint(object.Sequence, 10)}
		if wide {
			row = append(row, nodeOf(object), narrate.Who(object.LastChange))
		}
		if namespaces {
			row = append([]string{object.Ref.Namespace}, row...)
		}
		rows = append(rows, row)
	}
	return printTable(out, rows)
}

// nodeOf is the node that a Pod is bound to; "-": none.
func nodeOf(object *history.Object) string {
	var wire struct{ Spec struct{ NodeName string } }
	_ = json.Unmarshal(object.JSON, &wire)
	return cmp.Or(wire.Spec.NodeName, "-")
}

// summary is what a table shows of an object.
func summary(object *history.Object) (state, images string, created time.Time) {
	var wire struct {
		Metadata struct {
			CreationTimestamp time.Time
			DeletionTimestamp *time.Time
		}
		Spec struct {
			Replicas   *int32
			Containers []corev1.Container
			Template   struct {
				Spec struct{ Containers []corev1.Container }
			}
		}
		Status struct {
			Phase                                                       string
			Replicas, ReadyReplicas, UpdatedReplicas, AvailableReplicas int32
			ContainerStatuses                                           []corev1.ContainerStatus
			Conditions                                                  []corev1.PodCondition
		}
	}
	_ = json.Unmarshal(object.JSON, &wire)
	containers := append(wire.Spec.Containers, wire.Spec.Template.Spec.Containers...)
	var names []string
	for _, container := range containers {
		names = append(names, container.Image)
	}
	switch object.Ref.Resource {
	case world.ResourcePods:
		ready, restarts := 0, int32(0)
		for _, status := range wire.Status.ContainerStatuses {
			if status.Ready {
				ready++
			}
			restarts += status.RestartCount
		}
		state = fmt.Sprintf("%s, %d of %d ready", wire.Status.Phase, ready, len(wire.Spec.Containers))
		if restarts > 0 {
			state += fmt.Sprintf(", %d restarts", restarts)
		}
	case world.ResourceCloneSets:
		wanted := int32(1)
		if wire.Spec.Replicas != nil {
			wanted = *wire.Spec.Replicas
		}
		state = fmt.Sprintf("%d of %d, %d updated, %d ready, %d available", wire.Status.Replicas, wanted, wire.Status.UpdatedReplicas, wire.Status.ReadyReplicas, wire.Status.AvailableReplicas)
	case world.ResourceNodes:
		state = "not ready"
		for _, condition := range wire.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				state = "ready"
			}
		}
	}
	if wire.Metadata.DeletionTimestamp != nil {
		state = strings.TrimPrefix(state+", terminating", ", ")
	}
	return state, strings.Join(names, ", "), wire.Metadata.CreationTimestamp
}

// change is what became of one object between two moments.
type change struct {
	Object string `json:"object"`
	// Change is "added", "removed", "replaced" (another object of the same name) or "changed".
	Change      string               `json:"change"`
	Who         string               `json:"lastChangedBy,omitempty"`
	Differences []narrate.Difference `json:"differences,omitempty"`
}

// compare merges two sorted lists of objects.
func compare(before, after []*history.Object, withStatus bool) ([]change, error) {
	out := []change{}
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = world.CompareRefs(before[0].Ref, after[0].Ref)
		}
		switch {
		case order < 0:
			out = append(out, change{Object: before[0].Ref.String(), Change: "removed"})
			before = before[1:]
		case order > 0:
			out = append(out, change{Object: after[0].Ref.String(), Change: "added", Who: narrate.Who(after[0].LastChange)})
			after = after[1:]
		default:
			one := change{Object: after[0].Ref.String(), Change: "changed", Who: narrate.Who(after[0].LastChange)}
			if before[0].UID != after[0].UID {
				one.Change = "replaced"
			}
			var err error
			if one.Differences, err = narrate.Differences(before[0].JSON, after[0].JSON, withStatus); err != nil {
				return nil, fmt.Errorf("%s: %w", after[0].Ref, err)
			}
			if len(one.Differences) > 0 {
				out = append(out, one)
			}
			before, after = before[1:], after[1:]
		}
	}
	return out, nil
}

func printChanges(out io.Writer, changes []change) {
	if len(changes) == 0 {
		fmt.Fprintln(out, "nothing differs")
	}
	for _, one := range changes {
		who := ""
		if one.Who != "" && one.Change != "added" {
			who = ", last by " + one.Who
		}
		fmt.Fprintf(out, "%s is %s%s\n", one.Object, one.Change, who)
		for _, difference := range one.Differences {
			fmt.Fprintf(out, "    %s\n", difference)
		}
	}
}
