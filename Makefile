# What CI runs is `make check`; the other targets are its parts and longer forms.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
PLATFORMS   = linux/amd64 linux/arm64 linux/386 linux/arm darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64
COVERED     = ./metafile ./entryfile ./encryption ./mmapwal ./cleanup ./metrics ./backup ./internal/archive
T          ?= 10s

.PHONY: check steps test format vet staticcheck race cover fuzz cross bench demo examples etcd alerts powercut histories realdisk mutations damage nofallocate

STEPS = format vet staticcheck cross test nofallocate race cover examples etcd alerts histories realdisk mutations fuzz bench demo

check: $(STEPS)

# The steps of check, for .ci/run.
steps:
	@echo $(STEPS)

test:
	go test ./...

format:
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

vet:
	go vet ./...

staticcheck:
	go run $(STATICCHECK) ./...

# Without those packages that have no goroutines, or do in turn what the log does in the
# background: they take minutes under the race detector.
race:
	go test -race -short -timeout 30m $$(go list ./... | grep -vE '/internal/(inspect|damage|powercut|histories|compat|dgraph|etcd)$$')

# Each package is covered by its own tests and those of the engine above it.
cover:
	@./.ci/coverage 85 $(COVERED)

# Every fuzz target in turn, for T each: make fuzz T=10m
fuzz:
	@for target in $$(go test ./fuzz -list '^Fuzz' | grep '^Fuzz'); do \
		echo "fuzz $$target for $(T)"; \
		./.ci/fuzz $$target $(T) || exit 1; \
	done

examples:
	@for dir in examples/*/; do echo "test $$dir"; (cd $$dir && go vet ./... && go test ./...) || exit 1; done

# The import from etcd, beside etcd's own code.
etcd:
	cd cmd/mmapwal/internal/etcd/etcdtest && go vet ./... && go test ./...

# The alert rules and the dashboard, with Prometheus's own engine.
alerts:
	cd metrics/internal/rulestest && go vet ./... && go test ./...

# Power cuts on the simulated disk, N images for each sync policy, of random
# histories that no run has seen: make powercut N=1000000
powercut: N ?= 100000
powercut:
	SEED=$${SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} N=$(N) go test ./internal/powercut -run '^TestPowerCut$$' -count=1 -v -timeout 24h

# Legal histories of N seeds from SEED on, a tenth as many damaged, and those that groups of
# raft nodes have saved: make histories N=100000 SEED=5000. ALL=1 looks at the log in all ways
# after every call.
histories: N ?= 1000
histories:
	N=$(N) go test ./internal/histories -run '^(TestRandom|TestRecorded|TestDamage)$$' -count=1 -v -timeout 24h

# The engine, broken in many ways, one at a time: each must be noticed.
mutations:
	MUTATIONS=1 go test ./mmapwal -run '^TestPlantedFaults$$' -count=1 -v
	MUTATIONS=1 go test ./internal/powercut -run '^(TestMutations|TestHistoryMutations)$$' -count=1 -v -timeout 40m

# As where the file system lacks fallocate and does not tell holes: ext2, ext3, ramfs, NFS 3,
# darwin, freebsd. Left out is what shows when writes go around the page cache: none does there.
nofallocate:
	go test -tags nofallocate -skip '^Test(Direct|DirectOrNot|ReadDirect|CostOfDirectSave|FaultsDirect|Awaited)$$' ./mmapwal ./entryfile ./metafile ./cleanup ./backup ./internal/vfs/...

# Every bit, instead of some of each byte.
damage:
	FULL=1 go test ./internal/damage -count=1 -v -timeout 60m

# Power cuts, full and failing disks on real file systems. It needs root: without,
# it says so and does nothing.
realdisk:
	cd internal/realdisk && go vet ./... && REALDISK=$$(test $$(id -u) != 0 || echo required) go test -count=1 -v ./...

cross:
	@for platform in $(PLATFORMS); do \
		echo "build $$platform"; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} go build ./... || exit 1; \
	done
	GOOS=linux GOARCH=386 go vet ./...

# A smoke run: that the benchmarks work, not how fast they are.
bench:
	cd bench && go vet ./... && go test ./... && go run . --smoke >/dev/null
	go test ./mmapwal -run '^$$' -bench . -benchtime 20x -benchmem

demo:
	go run ./cmd/mmapwal demo --writes 1000 --kills 3
