package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/namespaces"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// perSecond runs op n times by so many callers at once.
func perSecond(n, callers int, op func(int) error) (float64, error) {
	var (
		next int64 = -1
		wg   sync.WaitGroup
		fail atomic.Value
	)
	start := time.Now()
	for c := 0; c < callers; c++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := atomic.AddInt64(&next, 1); i < int64(n); i = atomic.AddInt64(&next, 1) {
				if err := op(int(i)); err != nil {
					fail.Store(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if err, ok := fail.Load().(error); ok {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

const listed = 10000

func rates(o options) (interface{}, error) {
	s, err := open(o.db)
	if err != nil {
		return nil, err
	}
	defer s.bdb.Close()
	ops, err := newOperations(s, o.targets)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	measure := func(name string, n, callers int, op func(int) error) error {
		v, err := perSecond(n, callers, op)
		out[name] = v
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	reads := o.count * 500
	type step struct {
		name       string
		n, callers int
		op         func(int) error
	}
	for _, st := range []step{
		{"imageGet1", reads, 1, ops.imageGet},
		{"imageGet8", reads, 8, ops.imageGet},
		{"contentInfo1", reads, 1, ops.contentInfo},
		{"contentInfo8", reads, 8, ops.contentInfo},
		{"imageGetKept", reads, 1, ops.imageGetKept},
		{"contentInfoKept", reads, 1, ops.contentInfoKept},
		{"imageCreate1", o.count, 1, ops.imageCreate},
		{"imageCreate64", o.count * 16, 64, ops.imageCreate},
		{"leaseCreate1", o.count, 1, ops.leaseCreate},
		{"labelUpdate1", o.count, 1, ops.labelUpdate},
	} {
		if err := measure(st.name, st.n, st.callers, st.op); err != nil {
			return nil, err
		}
	}
	s.bdb.NoSync = true
	if err := measure("imageCreateVisible", o.count*4, 1, ops.imageCreate); err != nil {
		return nil, err
	}
	s.bdb.NoSync = false
	if out["imageList10k"], err = s.listRate(ops); err != nil {
		return nil, err
	}
	// The same writes once collections have freed pages: each round's images
	// are deleted and what they kept is collected.
	for i := 0; i < 5; i++ {
		if _, err := s.mdb.GarbageCollect(context.Background()); err != nil {
			return nil, err
		}
		for _, t := range ops.targets[i*len(ops.targets)/20 : (i+1)*len(ops.targets)/20] {
			if err := ops.images.Delete(ops.ctx, t.Image); err != nil {
				return nil, err
			}
		}
	}
	if _, err := s.mdb.GarbageCollect(context.Background()); err != nil {
		return nil, err
	}
	if err := measure("imageCreate1Collected", o.count, 1, ops.imageCreate); err != nil {
		return nil, err
	}
	if err := measure("imageCreate64Collected", o.count*16, 64, ops.imageCreate); err != nil {
		return nil, err
	}
	return out, nil
}

// listRate is how often a second all of 10,000 images can be listed.
func (s *store) listRate(ops *operations) (float64, error) {
	ctx := namespaces.WithNamespace(context.Background(), "listed")
	if err := s.mdb.Update(func(tx *bolt.Tx) error {
		tctx := metadata.WithTransactionContext(ctx, tx)
		for i := 0; i < listed; i++ {
			if _, err := ops.images.Create(tctx, images.Image{
				Name:   fmt.Sprintf("registry.example.com/listed/app-%05d:latest", i),
				Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.Digest(ops.at(i).Index), Size: 1400},
				Labels: map[string]string{"io.cri-containerd.image": "managed"},
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return 0, err
	}
	return perSecond(20, 1, func(int) error {
		l, err := ops.images.List(ctx)
		if err == nil && len(l) != listed {
			return fmt.Errorf("listed %d images", len(l))
		}
		return err
	})
}
