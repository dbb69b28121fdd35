package main

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/containerd/metadata"
)

// collection is one timed run.
type collection struct {
	TotalMS float64 `json:"totalMs"`
	// LockedMS is containerd's own MetaD: the time it kept all writers out.
	LockedMS float64 `json:"lockedMs"`
	MarkMS   float64 `json:"markMs"`
	Memory   memory  `json:"memory"`
	Removed  counts  `json:"removed"`
}

// phases is a context that takes the time whenever somebody asks for its Done
// channel. The collector derives a context in its marking transaction and
// another in its sweeping one, and cancels each at its end; deriving and
// cancelling both ask. So the first two times enclose marking.
type phases struct {
	context.Context
	mu    sync.Mutex
	times []time.Time
}

func (p *phases) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times = append(p.times, time.Now())
	return nil
}
func (p *phases) Err() error { return nil }

func collect(o options) (interface{}, error) {
	s, err := open(o.db)
	if err != nil {
		return nil, err
	}
	defer s.bdb.Close()
	// Counted outside of the times; one after another as a daemon would.
	var runs []collection
	for i := 0; i < 1+o.runs; i++ {
		r, err := s.collectOnce()
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return map[string]interface{}{
		"openMs": s.openMS, "first": runs[0], "next": runs[1:], "backendBytes": s.backendBytes,
	}, nil
}

func (s *store) collectOnce() (r collection, err error) {
	before, err := count(s.bdb)
	if err != nil {
		return r, err
	}
	p := &phases{Context: context.Background()}
	r.Memory, err = peakWhile(func() error {
		start := time.Now()
		stats, err := s.mdb.GarbageCollect(p)
		if err != nil {
			return err
		}
		r.TotalMS = ms(time.Since(start))
		r.LockedMS = ms(stats.(metadata.GCStats).MetaD)
		return nil
	})
	if err != nil {
		return r, err
	}
	if len(p.times) >= 2 {
		r.MarkMS = ms(p.times[1].Sub(p.times[0]))
	}
	after, err := count(s.bdb)
	r.Removed = before.minus(after)
	return r, err
}
