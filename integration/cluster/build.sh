#!/bin/sh
# Builds shiplog-cluster into the file given (default: bin/shiplog-cluster at the top of the repository).
# Minutes with a cold build cache, as all of Kubernetes is compiled; seconds after that.
set -eu
cd "$(dirname "$0")"
out=${1:-../../bin/shiplog-cluster}
v=k8s.io/component-base/version
CGO_ENABLED=0 exec go build -p 2 -trimpath \
	-ldflags "-s -w -X $v.gitVersion=v1.36.3 -X $v.gitMajor=1 -X $v.gitMinor=36 -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3" \
	-o "$out" ./cmd/shiplog-cluster
