package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/leases"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type delays struct {
	Idle   map[string]spread `json:"idle"`
	During map[string]spread `json:"during"`
	// Milliseconds that the asking client waited.
	Collections []float64 `json:"collections"`
	Removed     int       `json:"removed"`
}

// sample is one call, counted from when it was due: what queues behind a
// collection is charged for the wait.
type sample struct {
	due, end time.Time
}

const (
	pauseBetween = 300 * time.Millisecond
	makers       = 16
)

func collect(c *config) (interface{}, error) {
	client, ctx, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	held := make([]string, c.rounds)
	for i := range held {
		if held[i], err = hold(ctx, client, c.garbage); err != nil {
			return nil, err
		}
	}
	kinds, err := calls(ctx, client)
	if err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	samples := map[string]*[]sample{}
	var running sync.WaitGroup
	errs := make(chan error, len(kinds))
	for kind, do := range kinds {
		taken := new([]sample)
		samples[kind] = taken
		running.Add(1)
		go func(do func(int) error) {
			defer running.Done()
			if err := openLoop(c.rate, stop, taken, do); err != nil {
				errs <- err
			}
		}(do)
	}
	time.Sleep(time.Duration(c.seconds * float64(time.Second)))
	result := delays{Idle: map[string]spread{}, During: map[string]spread{}}
	var collections []sample
	for _, id := range held {
		start := time.Now()
		if err := client.LeasesService().Delete(ctx, leases.Lease{ID: id}, leases.SynchronousDelete); err != nil {
			return nil, err
		}
		collections = append(collections, sample{start, time.Now()})
		result.Collections = append(result.Collections, milliseconds(time.Since(start)))
		time.Sleep(pauseBetween)
	}
	close(stop)
	running.Wait()
	if len(errs) > 0 {
		return nil, <-errs
	}
	if result.Removed, err = removed(ctx, client, held, c.garbage); err != nil {
		return nil, err
	}
	first := collections[0].due
	var allIdle, allDuring []float64
	for kind, taken := range samples {
		var idle, during []float64
		for _, s := range *taken {
			ms := milliseconds(s.end.Sub(s.due))
			if s.end.Before(first) {
				idle = append(idle, ms)
			} else if overlaps(s, collections) {
				during = append(during, ms)
			}
		}
		allIdle, allDuring = append(allIdle, idle...), append(allDuring, during...)
		result.Idle[kind], result.During[kind] = spreadOf(idle), spreadOf(during)
	}
	result.Idle["all"], result.During["all"] = spreadOf(allIdle), spreadOf(allDuring)
	return result, nil
}

func overlaps(s sample, collections []sample) bool {
	for _, c := range collections {
		if s.due.Before(c.end) && s.end.After(c.due) {
			return true
		}
	}
	return false
}

// openLoop starts a call at every tick, whether or not the one before has ended.
func openLoop(perSecond int, stop <-chan struct{}, taken *[]sample, do func(int) error) error {
	var mu sync.Mutex
	var calls sync.WaitGroup
	var failed error
	interval := time.Second / time.Duration(perSecond)
	start := time.Now()
	for n := 0; ; n++ {
		due := start.Add(time.Duration(n) * interval)
		select {
		case <-stop:
			calls.Wait()
			return failed
		case <-time.After(time.Until(due)):
		}
		calls.Add(1)
		go func(n int) {
			defer calls.Done()
			err := do(n)
			end := time.Now()
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = err
			}
			*taken = append(*taken, sample{due, end})
		}(n)
	}
}

func calls(ctx context.Context, client *containerd.Client) (map[string]func(int) error, error) {
	name := fmt.Sprintf("example.com/collect/%d", time.Now().UnixNano())
	dgst, err := blob(ctx, client, name)
	if err != nil {
		return nil, err
	}
	for _, part := range []string{"read", "written"} {
		if _, err := client.ImageService().Create(ctx, picture(name+":"+part)); err != nil {
			return nil, err
		}
	}
	return map[string]func(int) error{
		"content info": func(int) error {
			_, err := client.ContentStore().Info(ctx, dgst)
			return err
		},
		"image get": func(int) error {
			_, err := client.ImageService().Get(ctx, name+":read")
			return err
		},
		"image update": func(n int) error {
			im := images.Image{Name: name + ":written", Labels: map[string]string{"turn": fmt.Sprint(n)}}
			_, err := client.ImageService().Update(ctx, im, "labels.turn")
			return err
		},
	}, nil
}

func garbageText(lease string, n int) string { return fmt.Sprintf("%s %d", lease, n) }

// hold writes blobs that only a lease keeps.
func hold(ctx context.Context, client *containerd.Client, blobs int) (string, error) {
	id := fmt.Sprintf("held-%d", time.Now().UnixNano())
	if _, err := client.LeasesService().Create(ctx, leases.WithID(id)); err != nil {
		return "", err
	}
	ctx = leases.WithLease(ctx, id)
	errs := make(chan error, makers)
	for m := 0; m < makers; m++ {
		go func(m int) {
			for n := m; n < blobs; n += makers {
				text := garbageText(id, n)
				desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
				if err := content.WriteBlob(ctx, client.ContentStore(), text, strings.NewReader(text), desc); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}(m)
	}
	var first error
	for m := 0; m < makers; m++ {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return id, first
}

// removed counts how much of the garbage is gone: all, or the figures mean nothing.
func removed(ctx context.Context, client *containerd.Client, held []string, blobs int) (int, error) {
	there := map[digest.Digest]bool{}
	if err := client.ContentStore().Walk(ctx, func(info content.Info) error {
		there[info.Digest] = true
		return nil
	}); err != nil {
		return 0, err
	}
	gone := 0
	for _, id := range held {
		for n := 0; n < blobs; n++ {
			if !there[digest.FromString(garbageText(id, n))] {
				gone++
			}
		}
	}
	if gone != len(held)*blobs {
		return gone, fmt.Errorf("%d of %d garbage blobs are gone", gone, len(held)*blobs)
	}
	return gone, nil
}
