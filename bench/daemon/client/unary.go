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
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type rate struct {
	Calls   int     `json:"calls"`
	Seconds float64 `json:"seconds"`
	Times   spread  `json:"ms"`
}

// call is one operation of one client; n counts its calls.
type call func(ctx context.Context, client *containerd.Client, name string, n int) error

func picture(name string) images.Image {
	return images.Image{
		Name:   name,
		Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(name), Size: 1},
		Labels: map[string]string{"containerd.io/gc.ref.content.0": digest.FromString(name + " layer").String()},
	}
}

func blob(ctx context.Context, client *containerd.Client, text string) (digest.Digest, error) {
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	root := content.WithLabels(map[string]string{"containerd.io/gc.root": "bench"})
	return desc.Digest, content.WriteBlob(ctx, client.ContentStore(), text, strings.NewReader(text), desc, root)
}

// unary runs calls in closed loops. Loops create what they need before the clock starts.
func unary(c *config) (interface{}, error) {
	prefix := fmt.Sprintf("example.com/%s/%d", c.op, time.Now().UnixNano())
	setUp, do := operation(c, prefix)
	if do == nil {
		return nil, fmt.Errorf("no operation is called %q", c.op)
	}
	limit := 0
	if c.op == "delete" {
		limit = c.count / c.clients
	}
	var ready, done sync.WaitGroup
	begin := make(chan time.Time)
	times := make([][]float64, c.clients)
	errs := make([]error, c.clients)
	ready.Add(c.clients)
	done.Add(c.clients)
	for i := 0; i < c.clients; i++ {
		go func(i int) {
			defer done.Done()
			client, ctx, err := c.dial()
			name := fmt.Sprintf("%s/%d", prefix, i)
			if err == nil {
				defer client.Close()
				err = setUp(ctx, client, name, 0)
			}
			ready.Done()
			end := <-begin
			for n := 0; err == nil && (limit == 0 || n < limit) && (limit > 0 || time.Now().Before(end)); n++ {
				start := time.Now()
				err = do(ctx, client, name, n)
				times[i] = append(times[i], milliseconds(time.Since(start)))
			}
			errs[i] = err
		}(i)
	}
	ready.Wait()
	start := time.Now()
	for i := 0; i < c.clients; i++ {
		begin <- start.Add(time.Duration(c.seconds * float64(time.Second)))
	}
	done.Wait()
	took := time.Since(start)
	var all []float64
	for i := range times {
		if errs[i] != nil {
			return nil, errs[i]
		}
		all = append(all, times[i]...)
	}
	return rate{len(all), took.Seconds(), spreadOf(all)}, nil
}

func operation(c *config, prefix string) (setUp, do call) {
	create := func(ctx context.Context, client *containerd.Client, name string, n int) error {
		_, err := client.ImageService().Create(ctx, picture(fmt.Sprintf("%s:%d", name, n)))
		return err
	}
	nothing := func(context.Context, *containerd.Client, string, int) error { return nil }
	switch c.op {
	case "info":
		return func(ctx context.Context, client *containerd.Client, name string, _ int) error {
				_, err := blob(ctx, client, name)
				return err
			}, func(ctx context.Context, client *containerd.Client, name string, _ int) error {
				_, err := client.ContentStore().Info(ctx, digest.FromString(name))
				return err
			}
	case "get":
		return create, func(ctx context.Context, client *containerd.Client, name string, _ int) error {
			_, err := client.ImageService().Get(ctx, name+":0")
			return err
		}
	case "create":
		return nothing, create
	case "update":
		return create, func(ctx context.Context, client *containerd.Client, name string, n int) error {
			im := images.Image{Name: name + ":0", Labels: map[string]string{"turn": fmt.Sprint(n)}}
			_, err := client.ImageService().Update(ctx, im, "labels.turn")
			return err
		}
	case "delete":
		return func(ctx context.Context, client *containerd.Client, name string, _ int) error {
				for n := 0; n < c.count/c.clients; n++ {
					if err := create(ctx, client, name, n); err != nil {
						return err
					}
				}
				return nil
			}, func(ctx context.Context, client *containerd.Client, name string, n int) error {
				return client.ImageService().Delete(ctx, fmt.Sprintf("%s:%d", name, n))
			}
	}
	return nil, nil
}

type lists struct {
	Entries int       `json:"entries"`
	Times   []float64 `json:"ms"`
}

func list(c *config) (interface{}, error) {
	client, ctx, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var l lists
	for i := 0; i < c.count; i++ {
		start := time.Now()
		found, err := client.ImageService().List(ctx)
		if err != nil {
			return nil, err
		}
		l.Times = append(l.Times, milliseconds(time.Since(start)))
		l.Entries = len(found)
	}
	return l, nil
}
