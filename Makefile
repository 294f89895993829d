# What CI runs is `make check`; the other targets are its parts and longer forms.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
PLATFORMS   = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64
COVERED     = ./metafile ./entryfile ./mmapwal ./cleanup
FUZZ_TIME  ?= 10s

.PHONY: check test format vet staticcheck race cover fuzz cross bench demo

check: format vet staticcheck cross test race cover fuzz bench demo

test:
	go test ./...

format:
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

vet:
	go vet ./...

staticcheck:
	go run $(STATICCHECK) ./...

race:
	go test -race ./...

# Each package is covered by its own tests and those of the engine above it.
cover:
	@./.ci/coverage 85 $(COVERED)

# Every fuzz target in turn, for FUZZ_TIME each: make fuzz FUZZ_TIME=10m
fuzz:
	@for target in $$(go test ./fuzz -list '^Fuzz' | grep '^Fuzz'); do \
		echo "fuzz $$target for $(FUZZ_TIME)"; \
		go test ./fuzz -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ_TIME) -fuzzminimizetime 100x || exit 1; \
	done

cross:
	@for platform in $(PLATFORMS); do \
		echo "build $$platform"; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} go build ./... || exit 1; \
	done

# A smoke run: that the benchmarks work, not how fast they are.
bench:
	go test ./mmapwal -run '^$$' -bench . -benchtime 20x -benchmem

demo:
	go run ./cmd/mmapwal demo --writes 1000 --kills 3
