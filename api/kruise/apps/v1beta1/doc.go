// Package v1beta1 holds the Go types of the custom resources in apps.kruise.io/v1beta1, the version that is stored and that
// everything in Shiplog reads. Field names, JSON names and what is required are those of OpenKruise: manifests, clients and
// tools written for it work unchanged. The markers decide what the API server itself defaults and refuses; what a schema
// cannot say, admission decides (services/executor/admit).
//
// The types carry no behaviour. After a change run `go generate ./api/kruise/...`, which renews the deep copies of all
// versions and the manifests in deploy/crd.
//
// +kubebuilder:object:generate=true
// +groupName=apps.kruise.io
package v1beta1

//go:generate go tool -modfile=../../../../tools/go.mod controller-gen object crd paths=. paths=../v1alpha1 output:crd:dir=../../../../deploy/crd
//go:generate go run ../../../../deploy/crd/complete ../../../../deploy/crd/apps.kruise.io_clonesets.yaml ../../../../deploy/crd/apps.kruise.io_containerrecreaterequests.yaml
