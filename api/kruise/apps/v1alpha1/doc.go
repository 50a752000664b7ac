// Package v1alpha1 holds the Go types of the custom resources in apps.kruise.io/v1alpha1. Field names, JSON names and what
// is required are OpenKruise 1.9's: manifests, clients and tools written for it work unchanged. The markers decide what the
// API server itself defaults and refuses; what a schema cannot say is left to the planner.
//
// The types carry no behaviour. After a change run `go generate ./api/kruise/...`, which renews the deep copies here and
// the manifests in deploy/crd.
//
// +kubebuilder:object:generate=true
// +groupName=apps.kruise.io
package v1alpha1

//go:generate go tool -modfile=../../../../tools/go.mod controller-gen object crd paths=. output:crd:dir=../../../../deploy/crd
//go:generate go run ../../../../deploy/crd/complete ../../../../deploy/crd/apps.kruise.io_clonesets.yaml
