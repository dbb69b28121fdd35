package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/metadata/boltutil"
	"github.com/containerd/containerd/namespaces"
	"github.com/gogo/protobuf/types"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

const (
	snapshotterName = "overlayfs"
	runtimeName     = "io.containerd.runc.v2"
	specType        = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	recordsPerTx    = 50000
)

// record is one line of the input: a record of any kind, told apart by Kind.
// The first line is of kind "spec" and carries the text of container specs,
// with @ID@ where the container's id belongs.
type record struct {
	Kind, Namespace string
	Labels          map[string]string
	CreatedMsAgo    int64

	Digest            string
	SizeBytes         int64
	Key, Parent       string
	Name              string
	ID, Image         string
	Ref, Expected     string
	ExpiresInMs       int64
	Content, Snapshot string
	Text              string
}

// loader writes records. What the package's API takes without real bytes in a
// backend goes through it; blobs, snapshots and ingests are written into their
// buckets as the package itself lays them out.
type loader struct {
	db   *metadata.DB
	now  time.Time
	spec string
}

func load(o options) (interface{}, error) {
	if err := os.Remove(o.db); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	start := time.Now()
	opts := *bolt.DefaultOptions
	opts.NoSync = true // synced once at the end
	opts.FreelistType = bolt.FreelistMapType
	bdb, err := bolt.Open(o.db, 0644, &opts)
	if err != nil {
		return nil, err
	}
	l := &loader{db: metadata.NewDB(bdb, nil, nil), now: time.Now().UTC()}
	if err := l.db.Init(context.Background()); err != nil {
		return nil, err
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 16<<20)
	for more := true; more; {
		if err := l.db.Update(func(tx *bolt.Tx) error {
			for i := 0; i < recordsPerTx; i++ {
				if more = in.Scan(); !more {
					return in.Err()
				}
				var r record
				if err := json.Unmarshal(in.Bytes(), &r); err != nil {
					return err
				}
				if err := l.write(tx, &r); err != nil {
					return fmt.Errorf("%s %s%s%s%s: %w", r.Kind, r.Digest, r.Key, r.Name, r.ID, err)
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	if err := bdb.Sync(); err != nil {
		return nil, err
	}
	seconds := time.Since(start).Seconds()
	counts, err := count(bdb)
	if err != nil {
		return nil, err
	}
	if err := bdb.Close(); err != nil {
		return nil, err
	}
	fi, err := os.Stat(o.db)
	if err != nil {
		return nil, err
	}
	return map[string]interface{}{"seconds": seconds, "counts": counts, "fileBytes": fi.Size()}, nil
}

func (l *loader) write(tx *bolt.Tx, r *record) error {
	ctx := metadata.WithTransactionContext(namespaces.WithNamespace(context.Background(), r.Namespace), tx)
	created := l.now.Add(-time.Duration(r.CreatedMsAgo) * time.Millisecond)
	expires := l.now.Add(time.Duration(r.ExpiresInMs) * time.Millisecond)
	switch r.Kind {
	case "spec":
		l.spec = r.Text
		return nil
	case "namespace":
		return metadata.NewNamespaceStore(tx).Create(ctx, r.Namespace, r.Labels)
	case "blob":
		return l.blob(tx, r, created)
	case "snapshot":
		return l.snapshot(tx, r, created)
	case "ingest":
		return l.ingest(tx, r, expires)
	case "image":
		_, err := metadata.NewImageStore(l.db).Create(ctx, images.Image{
			Name:   r.Name,
			Labels: r.Labels,
			Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.Digest(r.Digest), Size: r.SizeBytes},
		})
		return err
	case "container":
		_, err := metadata.NewContainerStore(l.db).Create(ctx, containers.Container{
			ID:          r.ID,
			Labels:      r.Labels,
			Image:       r.Image,
			Runtime:     containers.RuntimeInfo{Name: runtimeName},
			Spec:        &types.Any{TypeUrl: specType, Value: []byte(strings.ReplaceAll(l.spec, "@ID@", r.ID))},
			SnapshotKey: r.ID,
			Snapshotter: snapshotterName,
		})
		return err
	case "lease":
		lm := metadata.NewLeaseManager(l.db)
		lease, err := lm.Create(ctx, leases.WithID(r.ID), leases.WithLabels(map[string]string{
			"containerd.io/gc.expire": expires.Format(time.RFC3339),
		}))
		if err != nil {
			return err
		}
		if err := lm.AddResource(ctx, lease, leases.Resource{ID: r.Content, Type: "content"}); err != nil {
			return err
		}
		return lm.AddResource(ctx, lease, leases.Resource{ID: r.Snapshot, Type: "snapshots/" + snapshotterName})
	}
	return fmt.Errorf("unknown kind %q", r.Kind)
}

// bucket makes the buckets on the way as it goes.
func bucket(tx *bolt.Tx, path ...string) (*bolt.Bucket, error) {
	b, err := tx.CreateBucketIfNotExists([]byte("v1"))
	for _, name := range path {
		if err != nil {
			return nil, err
		}
		b, err = b.CreateBucketIfNotExists([]byte(name))
	}
	return b, err
}

func (l *loader) blob(tx *bolt.Tx, r *record, created time.Time) error {
	b, err := bucket(tx, r.Namespace, "content", "blob", r.Digest)
	if err != nil {
		return err
	}
	var size [binary.MaxVarintLen64]byte
	if err := b.Put([]byte("size"), size[:binary.PutVarint(size[:], r.SizeBytes)]); err != nil {
		return err
	}
	return describe(b, created, r.Labels)
}

func (l *loader) snapshot(tx *bolt.Tx, r *record, created time.Time) error {
	all, err := bucket(tx, r.Namespace, "snapshots", snapshotterName)
	if err != nil {
		return err
	}
	b, err := all.CreateBucket([]byte(r.Key))
	if err != nil {
		return err
	}
	if r.Parent != "" {
		parent := all.Bucket([]byte(r.Parent))
		if parent == nil {
			return errors.New("its parent is missing")
		}
		children, err := parent.CreateBucketIfNotExists([]byte("children"))
		if err != nil {
			return err
		}
		if err := children.Put([]byte(r.Key), nil); err != nil {
			return err
		}
		if err := b.Put([]byte("parent"), []byte(r.Parent)); err != nil {
			return err
		}
	}
	n, err := all.NextSequence()
	if err != nil {
		return err
	}
	if err := b.Put([]byte("name"), []byte(fmt.Sprintf("%s/%d/%s", r.Namespace, n, r.Key))); err != nil {
		return err
	}
	return describe(b, created, r.Labels)
}

func (l *loader) ingest(tx *bolt.Tx, r *record, expires time.Time) error {
	b, err := bucket(tx, r.Namespace, "content", "ingests", r.Ref)
	if err != nil {
		return err
	}
	at, err := expires.MarshalBinary()
	if err != nil {
		return err
	}
	if err := b.Put([]byte("ref"), []byte(r.Namespace+"/1/"+r.Ref)); err != nil {
		return err
	}
	if err := b.Put([]byte("expireat"), at); err != nil {
		return err
	}
	return b.Put([]byte("expected"), []byte(r.Expected))
}

func describe(b *bolt.Bucket, created time.Time, labels map[string]string) error {
	if err := boltutil.WriteTimestamps(b, created, created); err != nil {
		return err
	}
	return boltutil.WriteLabels(b, labels)
}

// counts is how many records of each kind there are.
type counts struct {
	Images     int `json:"images"`
	Blobs      int `json:"blobs"`
	Snapshots  int `json:"snapshots"`
	Containers int `json:"containers"`
	Ingests    int `json:"ingests"`
	Leases     int `json:"leases"`
}

func count(bdb *bolt.DB) (c counts, err error) {
	err = bdb.View(func(tx *bolt.Tx) error {
		v1 := tx.Bucket([]byte("v1"))
		return v1.ForEach(func(ns, v []byte) error {
			if v != nil {
				return nil
			}
			b := v1.Bucket(ns)
			for _, kind := range []struct {
				n    *int
				path []string
			}{
				{&c.Images, []string{"images"}},
				{&c.Blobs, []string{"content", "blob"}},
				{&c.Snapshots, []string{"snapshots", snapshotterName}},
				{&c.Containers, []string{"containers"}},
				{&c.Ingests, []string{"content", "ingests"}},
				{&c.Leases, []string{"leases"}},
			} {
				if err := countIn(b, kind.n, kind.path); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return c, err
}

func countIn(b *bolt.Bucket, n *int, path []string) error {
	for _, name := range path {
		if b = b.Bucket([]byte(name)); b == nil {
			return nil
		}
	}
	return b.ForEach(func(_, v []byte) error {
		if v == nil {
			*n++
		}
		return nil
	})
}

func (c counts) minus(d counts) counts {
	return counts{
		Images: c.Images - d.Images, Blobs: c.Blobs - d.Blobs, Snapshots: c.Snapshots - d.Snapshots,
		Containers: c.Containers - d.Containers, Ingests: c.Ingests - d.Ingests, Leases: c.Leases - d.Leases,
	}
}
