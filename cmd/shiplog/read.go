package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

// reading says which log a tool reads, of which namespace, and how it prints.
type reading struct {
	where, cluster      string
	namespace           string
	allNamespaces       bool
	kubeconfig, context string
	output              string
	outputs             []string
	noIndex             bool
}

// bind adds the flags that all tools share; outputs are the formats besides the one for eyes.
func (r *reading) bind(command *cobra.Command, outputs ...string) {
	flags := command.Flags()
	r.outputs = outputs
	flags.StringVar(&r.where, "log", cmp.Or(os.Getenv("SHIPLOG_LOG"), ".shiplog"),
		"`WHERE` the log is: the state directory of an instance, running or stopped, the URL of a NATS server, or a bundle of shiplog export (default: $SHIPLOG_LOG, then .shiplog)")
	flags.Lookup("log").DefValue = "" // the text says it
	flags.StringVar(&r.cluster, "cluster", "local", "`NAME` of the cluster in the subjects of the log")
	flags.StringVarP(&r.namespace, "namespace", "n", "", "`NAMESPACE` (default: that of the kubeconfig's context, then \"default\")")
	flags.StringVar(&r.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` that says which namespace is meant; the cluster itself is not asked")
	flags.StringVar(&r.context, "context", "", "`NAME` of the kubeconfig's context")
	flags.StringVarP(&r.output, "output", "o", "", "output `FORMAT`: "+strings.Join(outputs, " or ")+" (default: text for eyes)")
	complete(command, "output", outputs...)
}

// bindAll adds -A.
func (r *reading) bindAll(flags *pflag.FlagSet) {
	flags.BoolVarP(&r.allNamespaces, "all-namespaces", "A", false, "all namespaces")
}

// check refuses a format that the tool does not have.
func (r *reading) check() error {
	if r.output == "" || slices.Contains(r.outputs, r.output) {
		return nil
	}
	return process.Usage(fmt.Errorf("--output %q is none of: %s", r.output, strings.Join(r.outputs, ", ")))
}

// inNamespace is the namespace that is meant.
func (r *reading) inNamespace() string {
	if r.namespace != "" {
		return r.namespace
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = r.kubeconfig
	namespace, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: r.context}).Namespace()
	if err != nil || namespace == "" {
		return "default"
	}
	return namespace
}

// target reads the arguments that name one object.
func (r *reading) target(arguments []string) (history.Target, error) {
	target, err := history.ParseTarget(arguments, r.inNamespace())
	if err != nil {
		return target, process.Usage(err)
	}
	return target, nil
}

// opened is a log and what times on the command line count back from.
type opened struct {
	*history.Log
	end time.Time
}

func (r *reading) open(ctx context.Context) (*opened, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	log, err := history.Open(ctx, r.where, r.cluster)
	if err != nil {
		return nil, err
	}
	end := time.Now()
	if !log.Live {
		newest, err := log.Newest(ctx)
		if err != nil {
			log.Close()
			return nil, err
		}
		end = newest.Time.Local()
	}
	return &opened{log, end}, nil
}

// moment reads a moment from a flag. Times ago count back from now, or from the end of a log that nobody writes any more.
func (o *opened) moment(flag, text string) (history.Moment, error) {
	moment, err := history.ParseMoment(text, o.end)
	if err != nil {
		return moment, process.Usage(fmt.Errorf("--%s: %w", flag, err))
	}
	return moment, nil
}

// span reads a span from two flags.
func (o *opened) span(fromFlag, from, toFlag, to string) (span history.Span, err error) {
	if span.From, err = o.moment(fromFlag, from); err == nil {
		span.To, err = o.moment(toFlag, to)
	}
	return span, err
}

// nothing is the error that the log does not know what was asked for.
type nothing struct{ error }

func (nothing) ExitCode() int { return exitNothing }

// exitNothing is the exit code that says so.
const exitNothing = 3

func (r *reading) unknown(target history.Target) error {
	return nothing{fmt.Errorf("the log of %s says nothing about %s in namespace %q", r.where, target, target.Namespace)}
}

// objectArguments refuses anything but KIND/NAME or KIND NAME.
func objectArguments(_ *cobra.Command, arguments []string) error {
	if len(arguments) == 0 || len(arguments) > 2 {
		return process.Usage(fmt.Errorf("name one object, for example cloneset/web"))
	}
	return nil
}

// print writes a value as JSON or YAML.
func print(out io.Writer, format string, value any) error {
	if format == "yaml" {
		data, err := yaml.Marshal(value)
		if err == nil {
			_, err = out.Write(data)
		}
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// complete offers the values of a flag.
func complete(command *cobra.Command, flag string, values ...string) {
	if err := command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was bound above
	}
}

// completionTime bounds how long a shell waits for names from the log.
const completionTime = 2 * time.Second

// completeObjects offers KIND/NAME for the objects that the log knows.
func (r *reading) completeObjects(kinds ...string) cobra.CompletionFunc {
	return func(command *cobra.Command, arguments []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(arguments) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(command.Context(), completionTime)
		defer cancel()
		log, err := r.open(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer log.Close()
		namespace := r.inNamespace()
		names := map[string]bool{}
		_ = log.Each(ctx, history.Span{Past: true}, func(record journal.Record) error {
			ref, about := history.ObjectOf(record.Entry)
			for _, kind := range kinds {
				if k := history.FindKind(kind); about && k.Has(ref) && ref.Namespace == namespace {
					names[kind+"/"+ref.Name] = true
				}
			}
			return nil
		})
		var out []string
		for name := range names {
			if strings.HasPrefix(name, toComplete) {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// worldAt folds the log up to a moment: everything of one namespace and what belongs to none.
func (o *opened) worldAt(ctx context.Context, at history.Moment, namespace string, alsoShow func(journal.Record) error) (*world.World, error) {
	w := world.New()
	err := o.Each(ctx, history.Span{Past: true, To: at}, func(record journal.Record) error {
		if ref, about := history.ObjectOf(record.Entry); about && ref.Namespace != namespace && ref.Namespace != "" {
			return nil
		}
		change, err := world.Decode(record.Sequence, record.Time, record.Entry)
		if err != nil {
			return err
		}
		w.Fold(change)
		return alsoShow(record)
	})
	return w, err
}
