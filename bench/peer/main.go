// Command peer measures containerd's own metadata package on bbolt, from
// Debian's source packages, over the records that ebbtide's benchmark hands it.
// It prints one JSON object on standard output; the benchmark that runs
// it (bench/main.ts) measures the same things of ebbtide and compares.
//
//	load     read records as lines of JSON from standard input into a new DB
//	collect  open the DB and collect: first what is garbage, then nothing
//	delay    writers at a fixed rate, before and during one collection
//	rates    operations per second
//	files    blobs and snapshots made per second, with containerd's own
//	         content directory and snapshotter below the store
//
// Every mode but load may change the DB: hand it a copy.
package main

import (
	_ "crypto/sha256" // go-digest knows only what is linked in
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/sirupsen/logrus"
)

type options struct {
	db      string
	targets string
	dir     string
	runs    int
	count   int
	rate    int
	leadMS  int
}

func main() {
	var o options
	flag.StringVar(&o.db, "db", "", "DB file")
	flag.StringVar(&o.targets, "targets", "", "file with the objects that delay and rates work on")
	flag.StringVar(&o.dir, "dir", "", "files: empty directory to work in")
	flag.IntVar(&o.runs, "runs", 3, "collect: collections that find nothing")
	flag.IntVar(&o.count, "count", 1000, "rates, files: operations per measurement")
	flag.IntVar(&o.rate, "rate", 50, "delay: arrivals per second of each kind")
	flag.IntVar(&o.leadMS, "lead", 2000, "delay: milliseconds before the collection")
	flag.Parse()
	logrus.SetLevel(logrus.ErrorLevel)

	modes := map[string]func(options) (interface{}, error){
		"load": load, "collect": collect, "delay": delay, "rates": rates, "files": files,
	}
	mode, ok := modes[flag.Arg(0)]
	if !ok {
		fail(fmt.Errorf("unknown mode %q", flag.Arg(0)))
	}
	result, err := mode(o)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peer:", err)
	os.Exit(1)
}
