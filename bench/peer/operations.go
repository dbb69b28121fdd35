package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/namespaces"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// target is an image that is there, with content it keeps.
type target struct{ Namespace, Image, Index, Manifest, Layer string }

const namespace = "k8s.io"

// Few enough to be asked for again before they have left the caches.
const targetsMax = 2000

// operations are what delay and rates issue, all in the first namespace and
// through containerd's public interfaces.
type operations struct {
	ctx     context.Context
	images  images.Store
	leases  leases.Manager
	content content.Store
	// Of the context's namespace.
	targets []target
	all     []target
	unique  string
	made    int64
}

func newOperations(s *store, path string) (*operations, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	o := &operations{
		ctx:     namespaces.WithNamespace(context.Background(), namespace),
		images:  metadata.NewImageStore(s.mdb),
		leases:  metadata.NewLeaseManager(s.mdb),
		content: s.mdb.ContentStore(),
		unique:  fmt.Sprint(time.Now().UnixNano()),
	}
	if err := json.Unmarshal(text, &o.all); err != nil {
		return nil, err
	}
	for _, t := range o.all {
		if t.Namespace == namespace && len(o.targets) < targetsMax {
			o.targets = append(o.targets, t)
		}
	}
	if len(o.targets) == 0 {
		return nil, fmt.Errorf("%s names no targets", path)
	}
	return o, nil
}

// at walks the targets in an order that neighbours in the DB do not follow.
func (o *operations) at(i int) target { return o.targets[(i*7919)%len(o.targets)] }

func (o *operations) imageCreate(i int) error {
	_, err := o.images.Create(o.ctx, images.Image{
		Name:   fmt.Sprintf("bench.example.com/%s/%d:latest", o.unique, atomic.AddInt64(&o.made, 1)),
		Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.Digest(o.at(i).Index), Size: 1400},
		Labels: map[string]string{"io.cri-containerd.image": "managed"},
	})
	return err
}

func (o *operations) leaseCreate(int) error {
	_, err := o.leases.Create(o.ctx,
		leases.WithID(fmt.Sprintf("bench-%s-%d", o.unique, atomic.AddInt64(&o.made, 1))),
		leases.WithExpiration(24*time.Hour))
	return err
}

func (o *operations) labelUpdate(i int) error {
	_, err := o.content.Update(o.ctx, content.Info{
		Digest: digest.Digest(o.at(i).Layer),
		Labels: map[string]string{"bench": fmt.Sprint(i)},
	}, "labels.bench")
	return err
}

func (o *operations) imageGetKept(i int) error {
	_, err := o.images.Get(o.ctx, o.at(i).Image)
	return err
}

func (o *operations) contentInfoKept(i int) error {
	_, err := o.content.Info(o.ctx, digest.Digest(o.at(i).Manifest))
	return err
}

// atAll walks the images of all namespaces.
func (o *operations) atAll(i int) (context.Context, target) {
	t := o.all[(i*7919)%len(o.all)]
	return namespaces.WithNamespace(context.Background(), t.Namespace), t
}

func (o *operations) imageGet(i int) error {
	ctx, t := o.atAll(i)
	_, err := o.images.Get(ctx, t.Image)
	return err
}

// contentInfo asks for their indexes, manifests and layers.
func (o *operations) contentInfo(i int) error {
	ctx, t := o.atAll(i)
	_, err := o.content.Info(ctx, digest.Digest([]string{t.Index, t.Manifest, t.Layer}[i%3]))
	return err
}
