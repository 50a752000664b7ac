# Everything a contributor needs: `make help` lists it. All set-up happens on the way; root is needed where real nodes run.
SHELL := /bin/bash
export PATH := $(CURDIR)/bin:$(PATH):/usr/local/go/bin
TOOL := go tool -modfile=tools/go.mod
GO := api cmd deploy examples integration internal services

.PHONY: help build test unit simtest sim blackbox chaostest chaos reliability demo bench benchlog benchimages performance generate lint cluster-up cluster-down clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

build: bin/shiplog bin/shiplog-nodeagent bin/shiplog-cluster ## the three programs, below bin (a first build of Kubernetes takes about 6 minutes)

bin/shiplog: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 go build -o $@ ./cmd/shiplog

# Without the tag gRPC brings along pages for tracing, and their templates keep the linker from leaving out what nobody calls.
bin/shiplog-nodeagent: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 go build -tags grpcnotrace -o $@ ./cmd/shiplog-nodeagent

bin/shiplog-cluster: FORCE
	@mkdir -p bin
	@echo "building bin/shiplog-cluster: Kubernetes, etcd and containers' glue in one binary; minutes at first, seconds from a warm cache"
	integration/cluster/build.sh $(CURDIR)/$@

bin/nats-server: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 go build -o $@ github.com/nats-io/nats-server/v2

bin/shiplog-natscluster: FORCE
	@mkdir -p bin
	cd integration/natscluster && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ ./cmd/shiplog-natscluster

bin/stepped: FORCE
	@mkdir -p bin
	go run ./integration/chaos/steppedtime $@
	CGO_ENABLED=0 go build -overlay $@/overlay.json -o $@/ ./cmd/shiplog github.com/nats-io/nats-server/v2

demo: build ## walk through the job of a CloneSet on a real cluster on this machine
	go run ./integration/demo $(DEMO)

test: lint unit simtest blackbox chaostest ## everything that CI runs

unit: build bin/nats-server ## tests of every package, against real parts where they need them
	go test ./api/... ./cmd/... ./deploy/... ./internal/... ./services/... ./integration/bench/... ./integration/testbed/... ./integration/histories/... ./integration/rules/...
	cd integration/cluster && go test -trimpath ./...
	cd integration/natscluster && go test ./...

blackbox: build ## the program as a user sees it, on a real cluster with real containers
	go test -count=1 -timeout 20m ./integration/blackbox/...

simtest: ## some thousands of simulated clusters with faults
	go test -count=1 ./integration/sim/...

sim: ## as many as you like: make sim SIM='--seeds 10000 --from 1'
	go run ./integration/sim/cmd/sim $(SIM)

chaos: build bin/nats-server bin/shiplog-natscluster bin/stepped ## break everything under rollouts: make chaos SEED=7 MINUTES=30 (CHAOS='--help' tells more)
	go run ./integration/chaos --seed $(or $(SEED),1) --minutes $(or $(MINUTES),5) $(CHAOS)

reliability: ## docs/reliability.md's tables, from the summaries of runs beside it
	go run ./integration/chaos table --into docs/reliability.md docs/reliability/*.json

chaostest: build bin/nats-server bin/shiplog-natscluster bin/stepped ## five minutes of it, short faults only
	go test -count=1 ./integration/chaos/...
	go run ./integration/chaos --seed $(or $(SEED),1) --minutes 5 --longest 8s

bench: build bin/nats-server ## every budget and its figure, beside a bare client's, into docs/performance.md: make bench BENCH='--sizes 1000' (BENCH='--help' tells more)
	go run ./integration/bench $(BENCH)

benchlog: build ## figures of a log of a million entries, for the same document
	go run ./integration/bench log --json docs/performance/log.json $(BENCHLOG)

benchimages: build ## figures of an ImagePullJob over 500 nodes, for the same document
	go run ./integration/bench images --json docs/performance/images.json $(BENCHIMAGES)

performance: ## docs/performance.md's tables and plot, from the results of runs beside it
	go run ./integration/bench table docs/performance/*.json

generate: ## protobuf, deepcopy and CRDs from their sources
	$(TOOL) buf generate
	go generate ./api/kruise/...

lint: ## formatting, vet, staticcheck, the log's schema, and that generated files are as generated
	@test -z "$$(gofmt -l $(GO))" || { gofmt -l $(GO); echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) buf lint
	@if git rev-parse -q --verify main >/dev/null; then $(TOOL) buf breaking --against '.git#branch=main'; fi
	$(MAKE) generate
	@git diff --exit-code -- api deploy/crd || { echo "generated files differ: commit what make generate wrote"; exit 1; }

cluster-up: bin/shiplog-cluster ## a real cluster in .cluster, for plain kubectl
	bin/shiplog-cluster up --dir .cluster --detach $(CLUSTER)
	@echo "export KUBECONFIG=$(CURDIR)/.cluster/kubeconfig; kubectl is: bin/shiplog-cluster kubectl"

cluster-down: bin/shiplog-cluster ## end it and clean up, also after a crash
	bin/shiplog-cluster down --dir .cluster

clean: ## remove what was built
	rm -rf bin

FORCE:
