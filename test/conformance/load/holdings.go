package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/mount"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// heldBlob is kept by a lease alone.
type heldBlob struct {
	lease string
	desc  ocispec.Descriptor
}

func (w *worker) holdBlob() {
	if len(w.held) >= liveLeases {
		w.releaseBlob()
	}
	ctx, id, ok := w.lease()
	if !ok {
		return
	}
	b, desc := w.anyBlob()
	if w.write(ctx, w.name("ref"), b, desc) {
		w.held = append(w.held, &heldBlob{id, desc})
	}
}

func (w *worker) releaseBlob() {
	i := w.pick(len(w.held))
	if i < 0 {
		return
	}
	h := w.held[i]
	w.read(fmt.Sprintf("client %d at work, lease %s", w.number, h.lease), h.desc)
	w.held = append(w.held[:i], w.held[i+1:]...)
	w.unlease(h.lease)
}

// container keeps its snapshot and the parents of that.
type container struct {
	id     string
	key    string
	parent string
}

// spec is opaque to the server and must come back byte for byte.
func (c *container) spec() (url string, value []byte) {
	return "load.test/spec/" + c.key, []byte(c.id + "\x00\xff")
}

// layer is a tar that holds the container's id.
func (c *container) layer() ([]byte, ocispec.Descriptor) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	text := []byte(c.id)
	if err := t.WriteHeader(&tar.Header{Name: "id", Mode: 0600, Size: int64(len(text)), Format: tar.FormatPAX}); err != nil {
		panic(err)
	}
	if _, err := t.Write(text); err != nil {
		panic(err)
	}
	if err := t.Close(); err != nil {
		panic(err)
	}
	return b.Bytes(), ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(b.Bytes()), Size: int64(b.Len()),
	}
}

func (w *worker) makeContainer() {
	if len(w.containers) >= liveContainers {
		w.deleteContainer()
	}
	ctx, lease, ok := w.lease()
	if !ok {
		return
	}
	defer w.unlease(lease)
	c := &container{id: w.name("container"), key: w.name("active"), parent: w.name("layer")}
	draft := w.name("draft")
	layer, desc := c.layer()
	if !w.write(ctx, w.name("ref"), layer, desc) {
		return
	}
	sn := w.client.SnapshotService(snapshotter)
	var mounts []mount.Mount
	steps := []struct {
		kind string
		do   func(context.Context) error
	}{
		{"snapshot prepare", func(ctx context.Context) (err error) { mounts, err = sn.Prepare(ctx, draft, ""); return err }},
		{"diff apply", func(ctx context.Context) error {
			_, err := w.client.DiffService().Apply(ctx, desc, mounts)
			return err
		}},
		{"snapshot commit", func(ctx context.Context) error { return sn.Commit(ctx, c.parent, draft) }},
		{"snapshot prepare", func(ctx context.Context) error { _, err := sn.Prepare(ctx, c.key, c.parent); return err }},
	}
	for _, step := range steps {
		switch err := w.call(step.kind, ctx, step.do); {
		case err == errCut:
			return // The next container has keys of its own.
		case err != nil:
			w.host.fault("client %d, %s for %s: %v", w.number, step.kind, c.id, err)
			return
		}
	}
	cutBefore := false
	for {
		err := w.call("container create", ctx, func(ctx context.Context) error {
			_, err := w.client.ContainerService().Create(ctx, containers.Container{
				ID: c.id, Snapshotter: snapshotter, SnapshotKey: c.key, Spec: anyOf(c.spec()),
				Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"},
			})
			return err
		})
		switch {
		case err == nil, cutBefore && errdefs.IsAlreadyExists(err):
			w.containers = append(w.containers, c)
			return
		case err == errCut:
			cutBefore = true
		default:
			w.host.fault("client %d, container create %s: %v", w.number, c.id, err)
			return
		}
	}
}

func (w *worker) deleteContainer() {
	i := w.pick(len(w.containers))
	if i < 0 {
		return
	}
	c := w.containers[i]
	w.verifyContainer(fmt.Sprintf("client %d at work", w.number), c, false)
	w.containers = append(w.containers[:i], w.containers[i+1:]...)
	cutBefore := false
	for {
		err := w.call("container delete", w.ctx(), func(ctx context.Context) error {
			return w.client.ContainerService().Delete(ctx, c.id)
		})
		if err == errCut {
			cutBefore = true
			continue
		}
		if err != nil && !(cutBefore && errdefs.IsNotFound(err)) {
			w.host.fault("client %d, container delete %s: %v", w.number, c.id, err)
		}
		return
	}
}

func (w *worker) verifyContainer(when string, c *container, mounted bool) {
	why := fmt.Sprintf("%s, container %s", when, c.id)
	err := w.sure("container get", w.ctx(), func(ctx context.Context) error {
		found, err := w.client.ContainerService().Get(ctx, c.id)
		url, value := c.spec()
		if err == nil && (found.Spec.GetTypeUrl() != url || !bytes.Equal(found.Spec.GetValue(), value)) {
			w.host.fault("%s: another spec: %v", why, found.Spec)
		}
		return err
	})
	if err != nil {
		w.host.fault("%s: %v", why, err)
	}
	sn := w.client.SnapshotService(snapshotter)
	for _, key := range []string{c.key, c.parent} {
		err := w.sure("snapshot stat", w.ctx(), func(ctx context.Context) error {
			_, err := sn.Stat(ctx, key)
			return err
		})
		if err != nil {
			w.host.fault("%s: snapshot %s: %v", why, key, err)
		}
	}
	var mounts []mount.Mount
	err = w.sure("snapshot mounts", w.ctx(), func(ctx context.Context) (err error) {
		mounts, err = sn.Mounts(ctx, c.key)
		return err
	})
	if err == nil && mounted {
		err = mount.WithTempMount(w.ctx(), mounts, func(root string) error {
			b, err := os.ReadFile(filepath.Join(root, "id"))
			if err == nil && string(b) != c.id {
				return fmt.Errorf("the layer's file says %q", b)
			}
			return err
		})
	}
	if err != nil {
		w.host.fault("%s: mounts of %s: %v", why, c.key, err)
	}
}
