package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/leases"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image refers to a manifest whose labels refer to blobs: all of it is live
// while the image exists.
type image struct {
	name     string
	manifest ocispec.Descriptor
	blobs    []ocispec.Descriptor
	version  int // the label that was acknowledged last
}

func (w *worker) makeImage() {
	ctx, lease, ok := w.lease()
	if !ok {
		return
	}
	im := &image{name: w.name("image"), version: 1}
	labels := map[string]string{}
	for i := 0; i < 1+w.rand.Intn(3); i++ {
		b, desc := w.anyBlob()
		if !w.write(ctx, w.name("ref"), b, desc) {
			return
		}
		im.blobs = append(im.blobs, desc)
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = desc.Digest.String()
	}
	b, err := json.Marshal(map[string]interface{}{"name": im.name, "layers": im.blobs})
	if err != nil {
		panic(err)
	}
	im.manifest = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b)),
	}
	if !w.write(ctx, w.name("ref"), b, im.manifest, content.WithLabels(labels)) {
		return
	}
	if !w.createImage(ctx, im) {
		return
	}
	w.images = append(w.images, im)
	if w.rand.Intn(10) == 0 {
		w.unlease(lease, leases.SynchronousDelete)
	} else {
		w.unlease(lease)
	}
}

func (w *worker) createImage(ctx context.Context, im *image) bool {
	cutBefore := false
	for {
		err := w.call("image create", ctx, func(ctx context.Context) error {
			_, err := w.client.ImageService().Create(ctx, images.Image{
				Name: im.name, Target: im.manifest, Labels: map[string]string{"version": "1"},
			})
			return err
		})
		switch {
		case err == nil, cutBefore && errdefs.IsAlreadyExists(err):
			return true
		case err == errCut:
			cutBefore = true
		default:
			w.host.fault("client %d, image create %s: %v", w.number, im.name, err)
			return false
		}
	}
}

func (w *worker) get(name string) (images.Image, error) {
	var im images.Image
	err := w.sure("image get", w.ctx(), func(ctx context.Context) (err error) {
		im, err = w.client.ImageService().Get(ctx, name)
		return err
	})
	return im, err
}

func (w *worker) labelImage() {
	i := w.pick(len(w.images))
	if i < 0 {
		return
	}
	im := w.images[i]
	err := w.call("image update", w.ctx(), func(ctx context.Context) error {
		_, err := w.client.ImageService().Update(ctx, images.Image{
			Name: im.name, Labels: map[string]string{"version": strconv.Itoa(im.version + 1)},
		}, "labels.version")
		return err
	})
	switch {
	case err == nil:
		im.version++
	case err == errCut:
		// Done or not done, nothing else.
		found, err := w.get(im.name)
		if err == nil && found.Labels["version"] == strconv.Itoa(im.version+1) {
			im.version++
		}
	default:
		w.host.fault("client %d, image update %s: %v", w.number, im.name, err)
	}
}

func (w *worker) deleteImage() {
	i := w.pick(len(w.images))
	if i < 0 {
		return
	}
	im := w.images[i]
	w.images = append(w.images[:i], w.images[i+1:]...)
	var options []images.DeleteOpt
	if w.rand.Intn(20) == 0 {
		options = append(options, images.SynchronousDelete())
	}
	cutBefore := false
	for {
		err := w.call("image delete", w.ctx(), func(ctx context.Context) error {
			return w.client.ImageService().Delete(ctx, im.name, options...)
		})
		if err == errCut {
			cutBefore = true
			continue
		}
		if err != nil && !(cutBefore && errdefs.IsNotFound(err)) {
			w.host.fault("client %d, image delete %s: %v", w.number, im.name, err)
		}
		w.gone = append(w.gone, im.name)
		return
	}
}

func (w *worker) checkImage() {
	if i := w.pick(len(w.images)); i >= 0 {
		w.verifyImage(fmt.Sprintf("client %d at work", w.number), w.images[i])
	}
}

func (w *worker) verifyImage(when string, im *image) {
	why := fmt.Sprintf("%s, image %s", when, im.name)
	found, err := w.get(im.name)
	if err != nil {
		w.host.fault("%s: %v", why, err)
		return
	}
	if found.Target.Digest != im.manifest.Digest || found.Labels["version"] != strconv.Itoa(im.version) {
		w.host.fault("%s: version %s of %s, acknowledged was %d of %s",
			why, found.Labels["version"], found.Target.Digest, im.version, im.manifest.Digest)
	}
	for _, desc := range append([]ocispec.Descriptor{im.manifest}, im.blobs...) {
		w.read(why, desc)
	}
}

// listImages checks that a list holds all that this client has and nothing that it deleted.
func (w *worker) listImages() {
	found := map[string]bool{}
	prefix := fmt.Sprintf("image-%d-", w.number)
	err := w.sure("image list", w.ctx(), func(ctx context.Context) error {
		list, err := w.client.ImageService().List(ctx, fmt.Sprintf("name~=/^%s/", prefix))
		for _, im := range list {
			found[im.Name] = true
		}
		return err
	})
	if err != nil {
		w.host.fault("client %d, image list: %v", w.number, err)
		return
	}
	for _, im := range w.images {
		if !found[im.name] {
			w.host.fault("client %d: the list at %s misses %s", w.number, time.Now().Format(time.RFC3339), im.name)
		}
	}
	for _, name := range w.gone {
		if found[name] {
			w.host.fault("client %d: the list has %s, which was deleted", w.number, name)
		}
	}
}
