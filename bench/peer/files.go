package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/content/local"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/native"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// files measures imports in small: blobs of 1 KiB written and committed under
// a lease, and snapshots prepared and committed, with files below the store.
func files(o options) (interface{}, error) {
	bdb, err := bolt.Open(filepath.Join(o.dir, "meta.db"), 0644, bolt.DefaultOptions)
	if err != nil {
		return nil, err
	}
	defer bdb.Close()
	blobs, err := local.NewStore(filepath.Join(o.dir, "content"))
	if err != nil {
		return nil, err
	}
	snaps, err := native.NewSnapshotter(filepath.Join(o.dir, "native"))
	if err != nil {
		return nil, err
	}
	defer snaps.Close()
	mdb := metadata.NewDB(bdb, blobs, map[string]snapshots.Snapshotter{"native": snaps})
	if err := mdb.Init(context.Background()); err != nil {
		return nil, err
	}
	ctx := namespaces.WithNamespace(context.Background(), "k8s.io")
	lease, err := metadata.NewLeaseManager(mdb).Create(ctx, leases.WithID("bench"))
	if err != nil {
		return nil, err
	}
	ctx = leases.WithLease(ctx, lease.ID)
	cs, sn := mdb.ContentStore(), mdb.Snapshotter("native")

	out := map[string]float64{}
	body := bytes.Repeat([]byte("0123456789abcdef"), 64)
	write := func(offset int) func(int) error {
		return func(i int) error {
			b := append([]byte(fmt.Sprintf("%08d", i+offset)), body[8:]...)
			d := digest.FromBytes(b)
			return content.WriteBlob(ctx, cs, fmt.Sprintf("blob-%d", i+offset), bytes.NewReader(b),
				ocispec.Descriptor{Digest: d, Size: int64(len(b))})
		}
	}
	if out["blobWrite1"], err = perSecond(o.count, 1, write(0)); err != nil {
		return nil, err
	}
	if out["blobWrite16"], err = perSecond(o.count, 16, write(o.count)); err != nil {
		return nil, err
	}
	out["snapshotCommit1"], err = perSecond(o.count/2, 1, func(i int) error {
		key := fmt.Sprintf("prepared-%d", i)
		if _, err := sn.Prepare(ctx, key, ""); err != nil {
			return err
		}
		return sn.Commit(ctx, fmt.Sprintf("committed-%d", i), key)
	})
	return out, err
}
