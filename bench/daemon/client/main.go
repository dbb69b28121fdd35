// Command client measures a server of containerd's API from outside, with
// containerd's own Go client: the same program for every server.
//
// Built from Debian's packages (test/conformance/go-programs.ts), run once a
// measurement by ../measure.ts; prints one JSON object.
//
//	-mode write    a blob of -bytes in one stream, committed
//	-mode read     the same blob, through ReaderAt or (-stream) in one stream
//	-mode unary    calls of kind -op from -clients closed loops
//	-mode list     lists of all images of a namespace
//	-mode collect  open-loop calls while collections run
//	-mode seed     not a client: fills a containerd's database file, while it is stopped
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/namespaces"
	"github.com/sirupsen/logrus"
)

type config struct {
	address   string
	namespace string
	bytes     int64
	digest    string
	stream    bool
	op        string
	clients   int
	seconds   float64
	count     int
	rounds    int
	garbage   int
	rate      int
	db        string
	lists     int
}

func main() {
	var c config
	mode := flag.String("mode", "", "what to measure")
	flag.StringVar(&c.address, "address", "", "unix socket of the server")
	flag.StringVar(&c.namespace, "namespace", "bench", "namespace")
	flag.Int64Var(&c.bytes, "bytes", 1<<30, "write, read: size of the blob")
	flag.StringVar(&c.digest, "digest", "", "read: of the blob")
	flag.BoolVar(&c.stream, "stream", false, "read: all in one call")
	flag.StringVar(&c.op, "op", "info", "unary: info, get, create, update, delete")
	flag.IntVar(&c.clients, "clients", 1, "unary: loops, each with a connection of its own")
	flag.Float64Var(&c.seconds, "seconds", 2, "unary: how long; collect: how long without collections")
	flag.IntVar(&c.count, "count", 2000, "unary: objects to delete; list: repetitions; seed: images of namespace bulk")
	flag.IntVar(&c.rounds, "rounds", 10, "collect: collections")
	flag.IntVar(&c.garbage, "garbage", 200, "collect: blobs that a collection removes")
	flag.IntVar(&c.rate, "rate", 200, "collect: calls a second of each kind")
	flag.StringVar(&c.db, "db", "", "seed: database file of a containerd")
	flag.IntVar(&c.lists, "lists", 10000, "seed: images of namespace list")
	flag.Parse()
	logrus.SetLevel(logrus.ErrorLevel)

	modes := map[string]func(*config) (interface{}, error){
		"write": write, "read": read, "unary": unary, "list": list, "collect": collect, "seed": seed,
	}
	f := modes[*mode]
	if f == nil {
		fmt.Fprintf(os.Stderr, "no mode is called %q\n", *mode)
		os.Exit(2)
	}
	result, err := f(&c)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", *mode, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		os.Exit(1)
	}
}

func (c *config) dial() (*containerd.Client, context.Context, error) {
	client, err := containerd.New(c.address)
	return client, namespaces.WithNamespace(context.Background(), c.namespace), err
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// spread of samples in milliseconds.
type spread struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func spreadOf(samples []float64) spread {
	if len(samples) == 0 {
		return spread{}
	}
	sort.Float64s(samples)
	at := func(q float64) float64 { return samples[int(q*float64(len(samples)-1))] }
	return spread{len(samples), at(0.5), at(0.99), at(1)}
}
