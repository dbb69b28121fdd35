package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/snapshots"
)

// verifyAll compares the server with the responses of every client.
func verifyAll(workers []*worker, when string) {
	var all sync.WaitGroup
	for _, w := range workers {
		all.Add(1)
		go func(w *worker) {
			defer all.Done()
			w.awaitServer()
			w.verify(when)
		}(w)
	}
	all.Wait()
}

func (w *worker) verify(when string) {
	w.listImages()
	for _, im := range w.images {
		w.verifyImage(when, im)
	}
	for _, name := range w.gone {
		if _, err := w.get(name); !errdefs.IsNotFound(err) {
			w.host.fault("%s: image %s was deleted, yet: %v", when, name, err)
		}
	}
	for _, h := range w.held {
		w.read(fmt.Sprintf("%s, lease %s", when, h.lease), h.desc)
	}
	for _, c := range w.containers {
		w.verifyContainer(when, c, true)
	}
	w.verified = len(w.images) + len(w.gone) + len(w.held) + len(w.containers)
}

// sabotage removes something behind the account's back: an image, a live blob
// or a container, by the client's number.
func (w *worker) sabotage() {
	ctx := w.ctx()
	switch {
	case w.number%3 == 0 && len(w.images) > 0:
		must(w.client.ImageService().Delete(ctx, w.images[0].name))
	case w.number%3 == 1 && len(w.images) > 0:
		must(w.client.ContentStore().Delete(ctx, w.images[0].manifest.Digest))
	case w.number%3 == 2 && len(w.containers) > 0:
		must(w.client.ContainerService().Delete(ctx, w.containers[0].id))
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		os.Exit(4)
	}
}

// cleanUp deletes all that was made and collects: what is still there then is
// garbage that was not found.
func cleanUp(collector *worker, workers []*worker) (left []string) {
	for _, w := range workers {
		for len(w.images) > 0 {
			w.deleteImage()
		}
		for len(w.containers) > 0 {
			w.deleteContainer()
		}
	}
	for _, w := range workers[:min(namespacesInUse, len(workers))] {
		// Leases whose creation was cut short are known to nobody.
		err := w.sure("lease list", w.ctx(), func(ctx context.Context) error {
			list, err := w.client.LeasesService().List(ctx)
			for _, l := range list {
				w.unlease(l.ID)
			}
			return err
		})
		if err != nil {
			w.host.fault("lease list: %v", err)
		}
	}
	collector.collect()
	for _, w := range workers[:min(namespacesInUse, len(workers))] {
		left = append(left, w.remaining()...)
	}
	return left
}

func (w *worker) remaining() (left []string) {
	err := w.sure("content list", w.ctx(), func(ctx context.Context) error {
		return w.client.ContentStore().Walk(ctx, func(info content.Info) error {
			left = append(left, "blob "+info.Digest.String())
			return nil
		})
	})
	if err != nil {
		w.host.fault("content list: %v", err)
	}
	err = w.sure("snapshot list", w.ctx(), func(ctx context.Context) error {
		return w.client.SnapshotService(snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			left = append(left, "snapshot "+info.Name)
			return nil
		})
	})
	if err != nil {
		w.host.fault("snapshot list: %v", err)
	}
	return left
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}
