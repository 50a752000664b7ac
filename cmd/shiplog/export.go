package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/bundle"
	"shiplog.dev/internal/export"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/redact"
)

// exportCommand writes a window of the log into a file.
func exportCommand() *cobra.Command {
	var read reading
	var since, until, rollout string
	var redacted bool
	var annotations []string
	command := &cobra.Command{
		Use: "export FILE", Short: "Write a part of the log into one file, to send, to keep, and to read anywhere",
		Long: `Write a part of the log into one compressed file with an index and a digest: the entries of a window, and what counted at its
beginning, so that it folds. Every command that reads a log reads the file: shiplog why pod/web-x7k2p --log FILE.

Unless --redact=false, values of env entries, annotations by pattern and what is known of Secrets are replaced by placeholders: the
same value by the same one in the whole file, another one in each file. Decisions stay the same, which the export proves at its end by a
replay: where redaction changes one after all, it says where, and exits with 1; the file is there.

What is not replaced: names, labels, images, and commands and arguments of containers. Look at a bundle before you publish it.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog export incident.shiplog --since 14:00 --until 14:30 -n shop
  shiplog export rollout.shiplog --rollout 7d3c0e9a-.../4
  shiplog why cloneset/web -n shop --log incident.shiplog`,
		Args: func(_ *cobra.Command, arguments []string) error {
			if len(arguments) != 1 {
				return process.Usage(errors.New("name the one file to write, for example incident.shiplog"))
			}
			return nil
		},
		RunE: func(command *cobra.Command, arguments []string) error {
			log, err := read.open(command.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			window := export.Window{Namespace: read.namespace, Rollout: rollout}
			if window.Span, err = log.span("since", since, "until", until); err != nil {
				return err
			}
			if redacted {
				key := make([]byte, 32)
				rand.Read(key)
				if window.Redactor, err = redact.New(key, annotations); err != nil {
					return process.Usage(fmt.Errorf("--redact-annotations: %w", err))
				}
			}
			index, digest, err := writeBundle(command, log, window, arguments[0], read.cluster)
			if err != nil {
				return err
			}
			return tellExport(command, &read, arguments[0], index, digest)
		},
	}
	read.bind(command, "json", "yaml")
	flags := command.Flags()
	flags.StringVar(&since, "since", "", "start at this `MOMENT`; default: the beginning of the log")
	flags.StringVar(&until, "until", "", "end at this `MOMENT`; default: the end of the log")
	flags.StringVar(&rollout, "rollout", "", "only this `ROLLOUT`, UID/GENERATION or the UID of a workload: its span and its namespace")
	flags.BoolVar(&redacted, "redact", true, "replace values by placeholders")
	flags.StringSliceVar(&annotations, "redact-annotations", redact.Annotations, "`PATTERNS` of the keys of annotations to replace")
	return command
}

// writeBundle writes a bundle beside the file and puts it in its place once it is whole.
func writeBundle(command *cobra.Command, log *opened, window export.Window, path, cluster string) (index bundle.Index, digest string, err error) {
	fail := func(err error) (bundle.Index, string, error) {
		return index, "", fmt.Errorf("export to %s: %w", path, err)
	}
	file, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fail(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	writer, err := bundle.NewWriter(file)
	if err != nil {
		return fail(err)
	}
	if index, err = export.Write(command.Context(), log.Log, window, writer); err != nil {
		return fail(err)
	}
	index.Cluster, index.Version = cluster, process.Version()
	if digest, err = writer.Close(index); err != nil {
		return fail(err)
	}
	if err := errors.Join(file.Sync(), os.Rename(file.Name(), path)); err != nil {
		return fail(err)
	}
	return index, digest, nil
}

// tellExport says what was written, and whether it replays.
func tellExport(command *cobra.Command, read *reading, path string, index bundle.Index, digest string) error {
	written := reading{where: path, cluster: read.cluster}
	log, err := written.open(command.Context())
	if err != nil {
		return err
	}
	defer log.Close()
	proof, failure := prove(command.Context(), log, history.Moment{}, nil)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	out := command.OutOrStdout()
	if read.output != "" {
		err = print(out, read.output, struct {
			File   string       `json:"file"`
			Digest string       `json:"digest"`
			Bytes  int64        `json:"bytes"`
			Index  bundle.Index `json:"index"`
			Proof  replayed     `json:"replay"`
		}{path, digest, info.Size(), index, proof})
		return errors.Join(err, failure)
	}
	total, types := 0, []string{}
	for kind, n := range index.Entries {
		types = append(types, fmt.Sprintf("%d %s", n, kind))
		total += n
	}
	slices.Sort(types)
	fmt.Fprintf(out, "%s: %d bytes, %d entries (%s)\n", path, info.Size(), total, strings.Join(types, ", "))
	fmt.Fprintf(out, "  positions %d to %d, %s to %s\n", index.First, index.Last, log.when(index.From), clock(index.To))
	fmt.Fprintf(out, "  sha256 %s\n", digest)
	if failure != nil && index.Redacted {
		return fmt.Errorf("the file is written, but it does not replay (if the log itself does, redaction changed this decision): %w", failure)
	}
	if failure == nil {
		fmt.Fprintf(out, "  %s\n", proof)
	}
	return failure
}
