// kvbench asks as fast as an etcd v3 server answers, through etcd's own Go client, and prints one line of JSON.
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

var (
	endpoint    = flag.String("endpoint", "127.0.0.1:2379", "HOST:PORT")
	mode        = flag.String("mode", "put", "put, get, prefix, cas, lease, watch or fill")
	connections = flag.Int("connections", 1, "TCP connections")
	clients     = flag.Int("clients", 1, "closed loops, spread over the connections")
	watchers    = flag.Int("watchers", 1000, "mode watch: of one key, spread over the connections")
	keys        = flag.Int("keys", 10000, "modes get, prefix and fill: how many there are")
	seconds     = flag.Float64("seconds", 4, "measured")
	warm        = flag.Float64("warm", 1, "seconds before, not measured")
	keySize     = flag.Int("key-size", 256, "bytes")
	valueSize   = flag.Int("value-size", 1024, "bytes")
	value       string
	background  = context.Background()
)

// An action does one round of its mode for one client.
type action func(client *clientv3.Client, number int, chance *rand.Rand)

func main() {
	flag.Parse()
	value = strings.Repeat("v", *valueSize)
	open := make([]*clientv3.Client, *connections)
	for i := range open {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: 30 * time.Second})
		check(err)
		open[i] = client
	}
	var act action
	switch *mode {
	case "put":
		act = put
	case "get":
		fill(open[0], "/bench/get/")
		act = get
	case "prefix":
		fill(open[0], "/bench/prefix/")
		act = prefix
	case "cas":
		act = cas(*clients)
	case "lease":
		act = lease
	case "watch":
		act = watch(open)
	case "fill":
		fill(open[0], "/fill/")
		return
	default:
		check(fmt.Errorf("no such mode: %s", *mode))
	}
	measure(open, act)
}

func measure(open []*clientv3.Client, act action) {
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
				start := time.Now()
				if start.After(end) {
					return
				}
				act(open[i%*connections], i, chance)
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
		check(fmt.Errorf("nothing was answered in time"))
	}
	sort.Float64s(sorted)
	json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"rate": float64(len(sorted)) / *seconds, "p50_ms": sorted[len(sorted)/2], "p99_ms": sorted[len(sorted)*99/100],
	})
}

func put(client *clientv3.Client, number int, chance *rand.Rand) {
	_, err := client.Put(background, fmt.Sprintf("/bench/put/%0*d", *keySize-11, chance.Int63()), value)
	check(err)
}

func get(client *clientv3.Client, number int, chance *rand.Rand) {
	answer, err := client.Get(background, name("/bench/get/", chance.Intn(*keys)))
	check(err)
	if len(answer.Kvs) != 1 {
		check(fmt.Errorf("a key is missing"))
	}
}

// The hundred keys whose names differ in the last two digits.
func prefix(client *clientv3.Client, number int, chance *rand.Rand) {
	hundred := name("/bench/prefix/", chance.Intn(*keys))
	answer, err := client.Get(background, hundred[:len(hundred)-2], clientv3.WithPrefix())
	check(err)
	if len(answer.Kvs) != 100 {
		check(fmt.Errorf("%d keys where there should be 100", len(answer.Kvs)))
	}
}

// Each client has a key, and moves it on from the revision that it knows.
func cas(clients int) action {
	known := make([]int64, clients)
	return func(client *clientv3.Client, number int, chance *rand.Rand) {
		key := fmt.Sprintf("/bench/cas/%d", number)
		same := clientv3.Compare(clientv3.ModRevision(key), "=", known[number])
		answer, err := client.Txn(background).If(same).Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
		check(err)
		known[number] = answer.Header.Revision
		if !answer.Succeeded {
			known[number] = answer.Responses[0].GetResponseRange().Kvs[0].ModRevision
		}
	}
}

func lease(client *clientv3.Client, number int, chance *rand.Rand) {
	granted, err := client.Grant(background, 60)
	check(err)
	_, err = client.Put(background, fmt.Sprintf("/bench/lease/%d", number), value, clientv3.WithLease(granted.ID))
	check(err)
	_, err = client.Revoke(background, granted.ID)
	check(err)
}

// One put is over when every watcher has seen it.
func watch(open []*clientv3.Client) action {
	var seen sync.WaitGroup
	key := "/bench/watch"
	for i := 0; i < *watchers; i++ {
		channel := open[i%len(open)].Watch(background, key, clientv3.WithCreatedNotify())
		if answer := <-channel; answer.Err() != nil {
			check(answer.Err())
		}
		go func() {
			for answer := range channel {
				check(answer.Err())
				for range answer.Events {
					seen.Done()
				}
			}
		}()
	}
	return func(client *clientv3.Client, number int, chance *rand.Rand) {
		seen.Add(*watchers)
		_, err := client.Put(background, key, value)
		check(err)
		seen.Wait()
	}
}

func name(under string, number int) string {
	return fmt.Sprintf("%s%0*d", under, *keySize-len(under), number)
}

// All keys, unless they are there.
func fill(client *clientv3.Client, under string) {
	answer, err := client.Get(background, under, clientv3.WithPrefix(), clientv3.WithCountOnly())
	check(err)
	if answer.Count == int64(*keys) {
		return
	}
	var all sync.WaitGroup
	next := make(chan int)
	for i := 0; i < 500; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := range next {
				_, err := client.Put(background, name(under, number), value)
				check(err)
			}
		}()
	}
	for i := 0; i < *keys; i++ {
		next <- i
	}
	close(next)
	all.Wait()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "kvbench:", err)
		os.Exit(1)
	}
}
