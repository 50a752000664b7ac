package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/deploy/crd"
)

// crds prints the CustomResourceDefinitions.
func crds() *cobra.Command {
	return &cobra.Command{
		Use: "crds", Short: "Print the CustomResourceDefinitions", Args: process.NoArguments,
		Long:    "Print the CustomResourceDefinitions as YAML. `shiplog up` installs them itself; services that run alone expect them.",
		Example: "  shiplog crds | kubectl apply --server-side -f -",
		RunE: func(command *cobra.Command, _ []string) error {
			manifests, err := crd.Manifests()
			if err != nil {
				return err
			}
			for _, manifest := range manifests {
				if _, err := fmt.Fprintf(command.OutOrStdout(), "---\n%s", manifest.YAML); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
