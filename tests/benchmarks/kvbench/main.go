// kvbench puts as fast as an etcd v3 server answers, through etcd's own Go client, and prints one line of JSON.
// Built with Debian's golang-etcd-server-dev: GO111MODULE=off GOPATH=/usr/share/gocode go build
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
)

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:2379", "HOST:PORT")
	connections := flag.Int("connections", 1, "TCP connections")
	clients := flag.Int("clients", 1, "closed loops, spread over the connections")
	seconds := flag.Float64("seconds", 4, "measured")
	warm := flag.Float64("warm", 1, "seconds before, not measured")
	keySize := flag.Int("key-size", 256, "bytes")
	valueSize := flag.Int("value-size", 1024, "bytes")
	flag.Parse()

	open := make([]*clientv3.Client, *connections)
	for i := range open {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: 30 * time.Second})
		if err != nil {
			fail(err)
		}
		open[i] = client
	}
	value := strings.Repeat("v", *valueSize)
	begin := time.Now().Add(time.Duration(*warm * float64(time.Second)))
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	latencies := make([][]float64, *clients)
	var all sync.WaitGroup
	for i := range latencies {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			chance := rand.New(rand.NewSource(int64(i) + time.Now().UnixNano()))
			for {
				key := fmt.Sprintf("/bench/%0*d", *keySize-7, chance.Int63())
				start := time.Now()
				if start.After(end) {
					return
				}
				if _, err := open[i%*connections].Put(context.Background(), key, value); err != nil {
					fail(err)
				}
				if start.After(begin) {
					latencies[i] = append(latencies[i], time.Since(start).Seconds()*1e3)
				}
			}
		}(i)
	}
	all.Wait()
	var sorted []float64
	for _, each := range latencies {
		sorted = append(sorted, each...)
	}
	if len(sorted) == 0 {
		fail(fmt.Errorf("no put was answered in time"))
	}
	sort.Float64s(sorted)
	json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"rate": float64(len(sorted)) / *seconds, "p50_ms": sorted[len(sorted)/2], "p99_ms": sorted[len(sorted)*99/100],
	})
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "kvbench:", err)
	os.Exit(1)
}
