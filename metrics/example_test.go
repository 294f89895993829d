package metrics_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/seed-2fef92ad/raftwal/metrics"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// A log's metrics, as Prometheus scrapes them.
func Example() {
	dir, err := os.MkdirTemp("", "raftwal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	wal, err := mmapwal.Init(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer wal.Close()
	entry := &raftpb.Entry{Index: new(uint64(1)), Term: new(uint64(1)), Data: []byte("hello")}
	if err := wal.Save(nil, []*raftpb.Entry{entry}, nil); err != nil {
		log.Fatal(err)
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(wal, metrics.WithLabels(prometheus.Labels{"group": "7"})))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()

	response, err := http.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "raftwal_appended_") || strings.HasPrefix(line, "raftwal_poisoned") {
			fmt.Print(line)
		}
	}
	// Output:
	// raftwal_appended_bytes_total{group="7"} 5
	// raftwal_appended_entries_total{group="7"} 1
	// raftwal_poisoned{group="7"} 0
}

// Hundreds of logs in one process are shown as one.
func ExampleNewSum() {
	dir, err := os.MkdirTemp("", "raftwal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	registry, sum := prometheus.NewRegistry(), metrics.NewSum(metrics.WithNativeHistograms())
	registry.MustRegister(sum)

	for _, group := range []string{"1", "2", "3"} {
		wal, err := mmapwal.Init(filepath.Join(dir, group))
		if err != nil {
			log.Fatal(err)
		}
		defer wal.Close()
		sum.Add(wal)          // when it is opened
		defer sum.Remove(wal) // when it is closed
	}

	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "raftwal_logs" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output: raftwal_logs 3
}
