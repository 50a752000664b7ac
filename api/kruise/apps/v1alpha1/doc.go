// Package v1alpha1 holds the Go types of apps.kruise.io/v1alpha1, the version that manifests for OpenKruise 1.9 are written
// in. It is served and never stored: what it has in common with v1beta1 is v1beta1's, what differs is turned into v1beta1
// by package conversion. The API server's schema of this version comes from here; nothing else reads these types.
//
// +kubebuilder:object:generate=true
// +groupName=apps.kruise.io
package v1alpha1
