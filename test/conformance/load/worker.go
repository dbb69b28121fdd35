package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/namespaces"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	snapshotter     = "overlayfs"
	sharedBlobs     = 48
	liveImages      = 24 // a client deletes when it has more than this
	liveLeases      = 6
	liveContainers  = 6
	namespacesInUse = 2
)

// worker is one client with its account of what the server acknowledged. Its
// objects carry its number, so nobody else touches them; blobs are shared. Used
// by one goroutine.
type worker struct {
	host   *host
	client *containerd.Client
	number int
	rand   *rand.Rand
	next   int
	tally  tally

	images     []*image
	gone       []string // names of images whose deletion was acknowledged
	held       []*heldBlob
	containers []*container
	verified   int
}

func newWorker(h *host, number int, seed int64) *worker {
	return &worker{
		host: h, client: h.dial(), number: number, tally: newTally(),
		rand: rand.New(rand.NewSource(seed<<16 + int64(number))),
	}
}

func (w *worker) ctx() context.Context {
	return namespaces.WithNamespace(context.Background(), fmt.Sprintf("%s-%d", w.host.namespaces, w.number%namespacesInUse))
}

func (w *worker) name(what string) string {
	w.next++
	return fmt.Sprintf("%s-%d-%d", what, w.number, w.next)
}

// step does one thing, chosen by chance.
func (w *worker) step() {
	switch n := w.rand.Intn(100); {
	case n < 25 && len(w.images) < liveImages:
		w.makeImage()
	case n < 40:
		w.deleteImage()
	case n < 55:
		w.labelImage()
	case n < 75:
		w.checkImage()
	case n < 80:
		w.listImages()
	case n < 86:
		w.holdBlob()
	case n < 90:
		w.releaseBlob()
	case n < 95:
		w.makeContainer()
	default:
		w.deleteContainer()
	}
}

// pick chooses one of n, or -1.
func (w *worker) pick(n int) int {
	if n == 0 {
		return -1
	}
	return w.rand.Intn(n)
}

// blob of a size and content that follow from its number alone.
func blobOf(number int64) ([]byte, ocispec.Descriptor) {
	r := rand.New(rand.NewSource(number))
	b := make([]byte, 512+r.Intn(64<<10))
	r.Read(b)
	return b, ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func (w *worker) anyBlob() ([]byte, ocispec.Descriptor) {
	if w.rand.Intn(2) == 0 {
		return blobOf(int64(w.rand.Intn(sharedBlobs)))
	}
	return blobOf(w.rand.Int63())
}

// lease gives a context with a new lease and its id; false when it was refused.
func (w *worker) lease() (context.Context, string, bool) {
	for {
		id := w.name("lease")
		ctx := w.ctx()
		err := w.call("lease create", ctx, func(ctx context.Context) error {
			_, err := w.client.LeasesService().Create(ctx, leases.WithID(id))
			return err
		})
		if err == errCut {
			continue // Perhaps it exists; cleanUp finds it.
		}
		if err != nil {
			w.host.fault("client %d, lease create: %v", w.number, err)
			return ctx, id, false
		}
		return leases.WithLease(ctx, id), id, true
	}
}

func (w *worker) unlease(id string, options ...leases.DeleteOpt) {
	cutBefore := false
	for {
		err := w.call("lease delete", w.ctx(), func(ctx context.Context) error {
			return w.client.LeasesService().Delete(ctx, leases.Lease{ID: id}, options...)
		})
		if err == errCut {
			cutBefore = true
			continue
		}
		if err != nil && !(cutBefore && errdefs.IsNotFound(err)) {
			w.host.fault("client %d, lease delete %s: %v", w.number, id, err)
		}
		return
	}
}

// write stores a blob under the context's lease, however often it takes: the
// ingest goes on where it was cut. False when the server refused it.
func (w *worker) write(ctx context.Context, ref string, b []byte, desc ocispec.Descriptor, options ...content.Opt) bool {
	for {
		err := w.call("blob write", ctx, func(ctx context.Context) error {
			return content.WriteBlob(ctx, w.client.ContentStore(), ref, bytes.NewReader(b), desc, options...)
		})
		if err == nil {
			return true
		}
		if err != errCut {
			w.host.fault("client %d, write of %s as %s: %v", w.number, desc.Digest, ref, err)
			return false
		}
	}
}

// read checks that a blob is there and is what it should be.
func (w *worker) read(why string, desc ocispec.Descriptor) {
	err := w.sure("blob read", w.ctx(), func(ctx context.Context) error {
		info, err := w.client.ContentStore().Info(ctx, desc.Digest)
		if err != nil {
			return err
		}
		b, err := content.ReadBlob(ctx, w.client.ContentStore(), desc)
		if err == nil && (info.Size != desc.Size || digest.FromBytes(b) != desc.Digest) {
			w.host.fault("%s: blob %s has other bytes", why, desc.Digest)
		}
		return err
	})
	if err != nil {
		w.host.fault("%s: blob %s: %v", why, desc.Digest, err)
	}
}

// collect asks for a collection and waits for it.
func (w *worker) collect() {
	_, id, ok := w.lease()
	if !ok {
		return
	}
	w.unlease(id, leases.SynchronousDelete)
}
