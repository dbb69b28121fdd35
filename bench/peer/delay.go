package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/metadata"
)

// samples are delays in milliseconds, each counted from when the operation was
// due, so that what queues up behind a stall is charged for its wait.
type samples struct {
	Without []float64 `json:"without"`
	With    []float64 `json:"with"`
}

type arrival struct {
	due  time.Time
	took time.Duration
}

// arrivals issues op at a fixed rate until stop holds a time (Unix
// nanoseconds); what was due before that time is still issued.
func arrivals(rate int, stop *int64, op func(int) error) (out []arrival, err error) {
	gap := time.Second / time.Duration(rate)
	due := time.Now()
	for i := 0; ; i++ {
		due = due.Add(gap)
		time.Sleep(time.Until(due))
		if t := atomic.LoadInt64(stop); t != 0 && due.UnixNano() > t {
			return out, nil
		}
		if err := op(i); err != nil {
			return out, err
		}
		out = append(out, arrival{due, time.Since(due)})
	}
}

func delay(o options) (interface{}, error) {
	s, err := open(o.db)
	if err != nil {
		return nil, err
	}
	defer s.bdb.Close()
	ops, err := newOperations(s, o.targets)
	if err != nil {
		return nil, err
	}
	kinds := map[string]func(int) error{
		"imageCreate": ops.imageCreate, "leaseCreate": ops.leaseCreate, "labelUpdate": ops.labelUpdate,
	}
	var (
		stop  int64
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		got   = map[string][]arrival{}
	)
	for kind, op := range kinds {
		kind, op := kind, op
		wg.Add(1)
		go func() {
			defer wg.Done()
			list, err := arrivals(o.rate, &stop, op)
			mu.Lock()
			defer mu.Unlock()
			got[kind] = list
			if err != nil && first == nil {
				first = err
			}
		}()
	}
	time.Sleep(time.Duration(o.leadMS) * time.Millisecond)
	start := time.Now()
	stats, err := s.mdb.GarbageCollect(context.Background())
	end := time.Now()
	atomic.StoreInt64(&stop, end.UnixNano())
	wg.Wait()
	if err != nil {
		return nil, err
	}
	if first != nil {
		return nil, first
	}
	delays := map[string]samples{}
	for kind, list := range got {
		one := samples{Without: []float64{}, With: []float64{}}
		for _, a := range list {
			switch {
			case a.due.Add(a.took).Before(start):
				one.Without = append(one.Without, ms(a.took))
			case a.due.After(start.Add(-time.Millisecond)):
				one.With = append(one.With, ms(a.took))
			}
		}
		delays[kind] = one
	}
	return map[string]interface{}{
		"collectionMs": ms(end.Sub(start)),
		"lockedMs":     ms(stats.(metadata.GCStats).MetaD),
		"delays":       delays,
	}, nil
}
