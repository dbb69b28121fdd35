// Command load lets many clients work on one server at once while somebody
// else kills it, and then checks that nothing acknowledged was lost and that
// nothing live is missing.
//
// Built from Debian's packages (see ../go-programs.ts), driven by ../load.ts
// over standard input and output, one word or one JSON object a line:
//
//	driver → load   "down" (it is about to be killed), "up" (it responds again),
//	                "verify" (check now)
//	load → driver   {"event":"stopped"}, {"event":"report",…}
//
// Every client keeps its own account of what was acknowledged. A call that was
// cut short has an unknown outcome; the client finds out when the server is
// back and goes on from there.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

func main() {
	address := flag.String("address", "", "unix socket of the server")
	clients := flag.Int("clients", 32, "clients, each with a connection of its own")
	duration := flag.Duration("duration", 20*time.Second, "how long they work")
	collect := flag.Duration("collect", 300*time.Millisecond, "pause between requested collections")
	sabotage := flag.Bool("sabotage", false, "before the check, remove some things without the clients' knowledge: the check must find out")
	seed := flag.Int64("seed", 1, "of the random choices")
	prefix := flag.String("namespaces", "load", "how the names of its namespaces begin")
	flag.Parse()
	logrus.SetLevel(logrus.ErrorLevel)

	h := &host{address: *address, namespaces: *prefix}
	said := make(chan string)
	go h.listen(said)

	workers := make([]*worker, *clients)
	var done sync.WaitGroup
	end := time.Now().Add(*duration)
	for i := range workers {
		workers[i] = newWorker(h, i, *seed)
		done.Add(1)
		go func(w *worker) {
			defer done.Done()
			for time.Now().Before(end) {
				w.step()
			}
		}(workers[i])
	}
	collector := newWorker(h, len(workers), *seed)
	done.Add(1)
	go func() {
		defer done.Done()
		for time.Now().Before(end) {
			collector.collect()
			time.Sleep(*collect)
		}
	}()
	done.Wait()

	report(map[string]string{"event": "stopped"})
	for word := range said {
		if word == "verify" {
			break
		}
	}
	if *sabotage {
		for _, w := range workers {
			w.awaitServer()
			w.sabotage()
		}
	}
	verifyAll(workers, "after the last restart")
	collector.collect()
	verifyAll(workers, "after a collection")
	left := cleanUp(collector, workers)
	report(h.report(workers, left))
}

func report(v interface{}) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(b))
}

// listen follows what the driver says about the server.
func (h *host) listen(said chan<- string) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch word := in.Text(); word {
		case "down":
			atomic.StoreInt64(&h.downSince, time.Now().UnixNano())
			atomic.StoreInt64(&h.upSince, 0)
			atomic.AddInt64(&h.kills, 1)
		case "up":
			atomic.StoreInt64(&h.upSince, time.Now().UnixNano())
		default:
			said <- word
		}
	}
	os.Exit(3) // The driver is gone.
}
