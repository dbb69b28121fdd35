package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/errdefs"
)

const (
	callLimit = 60 * time.Second
	// A connection is re-made with a growing pause of at most 3 s.
	reconnectLimit = 10 * time.Second
	faultsShown    = 300
)

// host is what all clients know of the server together. Safe for concurrent use.
type host struct {
	address    string
	namespaces string
	downSince  int64 // unix nanoseconds, set by the driver
	upSince    int64 // 0 while it is down
	kills      int64

	mu     sync.Mutex
	faults []string
	count  int
}

func (h *host) fault(format string, args ...interface{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	if len(h.faults) < faultsShown {
		h.faults = append(h.faults, fmt.Sprintf(format, args...))
	}
}

func (h *host) dial() *containerd.Client {
	client, err := containerd.New(h.address)
	if err != nil {
		panic(err)
	}
	return client
}

// cut reports whether an error means that the connection broke, so that the
// outcome of the call is unknown. When the server was not killed lately that is
// a fault of its own.
func (h *host) cut(what string, err error) bool {
	if !errdefs.IsUnavailable(err) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) &&
		!strings.Contains(err.Error(), "transport is closing") && !strings.Contains(err.Error(), "EOF") {
		return false
	}
	up := atomic.LoadInt64(&h.upSince)
	never := atomic.LoadInt64(&h.downSince) == 0
	if never || (up != 0 && time.Since(time.Unix(0, up)) > reconnectLimit) {
		h.fault("%s: cut short though the server was not killed: %v", what, err)
	}
	return true
}

// tally counts calls of one worker by kind. Not safe for concurrent use.
type tally struct {
	acknowledged map[string]int
	unknown      map[string]int
	times        map[string][]float64 // milliseconds
}

func newTally() tally {
	return tally{map[string]int{}, map[string]int{}, map[string][]float64{}}
}

// errCut is the outcome of a call that was cut short.
var errCut = errors.New("cut short")

// call makes one call and classifies its end: nil, errCut, or the error that the
// server meant. After a cut it waits until the server responds again.
func (w *worker) call(kind string, ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	if err == nil {
		w.tally.acknowledged[kind]++
		w.tally.times[kind] = append(w.tally.times[kind], float64(time.Since(start).Microseconds())/1000)
		return nil
	}
	if ctx.Err() != nil {
		w.host.fault("client %d, %s: no response within %v", w.number, kind, callLimit)
		return errCut
	}
	if w.host.cut(fmt.Sprintf("client %d, %s", w.number, kind), err) {
		w.tally.unknown[kind]++
		w.awaitServer()
		return errCut
	}
	return err
}

func (w *worker) awaitServer() {
	for end := time.Now().Add(callLimit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := w.client.Version(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	w.host.fault("client %d: the server did not come back within %v", w.number, callLimit)
}

// sure repeats a call that only reads until it has a response.
func (w *worker) sure(kind string, ctx context.Context, f func(context.Context) error) error {
	for {
		if err := w.call(kind, ctx, f); err != errCut {
			return err
		}
	}
}

type kindReport struct {
	Acknowledged int     `json:"acknowledged"`
	Unknown      int     `json:"unknown"`
	P50          float64 `json:"p50Ms"`
	P99          float64 `json:"p99Ms"`
	Max          float64 `json:"maxMs"`
}

func (h *host) report(workers []*worker, left []string) interface{} {
	kinds := map[string]*kindReport{}
	times := map[string][]float64{}
	var live int
	for _, w := range workers {
		for kind, n := range w.tally.acknowledged {
			if kinds[kind] == nil {
				kinds[kind] = &kindReport{}
			}
			kinds[kind].Acknowledged += n
			times[kind] = append(times[kind], w.tally.times[kind]...)
		}
		for kind, n := range w.tally.unknown {
			if kinds[kind] == nil {
				kinds[kind] = &kindReport{}
			}
			kinds[kind].Unknown += n
		}
		live += w.verified
	}
	for kind, t := range times {
		sort.Float64s(t)
		at := func(q float64) float64 { return t[int(q*float64(len(t)-1))] }
		kinds[kind].P50, kinds[kind].P99, kinds[kind].Max = at(0.5), at(0.99), at(1)
	}
	return map[string]interface{}{
		"event": "report", "kills": h.kills, "kinds": kinds, "verified": live,
		"faults": h.faults, "faultCount": h.count, "left": left,
	}
}
