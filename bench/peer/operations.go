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
type target struct{ Image, Index, Manifest, Layer string }

// operations are what delay and rates issue, all in the first namespace and
// through containerd's public interfaces.
type operations struct {
	ctx     context.Context
	images  images.Store
	leases  leases.Manager
	content content.Store
	targets []target
	unique  string
	made    int64
}

func newOperations(s *store, path string) (*operations, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	o := &operations{
		ctx:     namespaces.WithNamespace(context.Background(), "k8s.io"),
		images:  metadata.NewImageStore(s.mdb),
		leases:  metadata.NewLeaseManager(s.mdb),
		content: s.mdb.ContentStore(),
		unique:  fmt.Sprint(time.Now().UnixNano()),
	}
	if err := json.Unmarshal(text, &o.targets); err != nil {
		return nil, err
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

func (o *operations) imageGet(i int) error {
	_, err := o.images.Get(o.ctx, o.at(i).Image)
	return err
}

func (o *operations) contentInfo(i int) error {
	_, err := o.content.Info(o.ctx, digest.Digest(o.at(i).Manifest))
	return err
}
