// Command peer lets containerd's own metadata package, from Debian's source
// packages, collect the garbage of small stores, so that a test can compare
// what is left with what ebbtide leaves.
//
// Standard input has one store a line, as JSON: {"records": […]}, and "keep", a
// file for a copy of the meta.db before the collection. For each one
// standard output has a line: {"left": ["blob|ns|sha256:…", …], "runs": 2}.
//
// Every store is a DB of its own. The package removes records while it walks
// them, and the walk may pass over the one behind a removed one; so it collects
// until nothing changes any more. That does not change what is left in the end:
// what is unmarked is no root and makes no other object one.
package main

import (
	"bufio"
	"context"
	_ "crypto/sha256" // go-digest knows only what is linked in
	_ "crypto/sha512"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/metadata/boltutil"
	"github.com/containerd/containerd/namespaces"
	"github.com/gogo/protobuf/types"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
)

type resource struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// record is one of any kind, told apart by Kind; Name is its digest, key, ref,
// id or name.
type record struct {
	Kind, Namespace, Name string
	Labels                map[string]string
	Snapshotter, Parent   string
	SnapshotKey           string
	Target, Expected      string
	// Nanoseconds from now; none when absent.
	ExpiresIn *int64
	Resources []resource
}

type store struct {
	Records []record
	Keep    string
}

type outcome struct {
	Left []string `json:"left"`
	Runs int      `json:"runs"`
}

func main() {
	logrus.SetLevel(logrus.PanicLevel)
	dir, err := os.MkdirTemp("", "ebbtide-peer-")
	if err != nil {
		fail(err)
	}
	err = serve(filepath.Join(dir, "meta.db"))
	os.RemoveAll(dir)
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peer:", err)
	os.Exit(1)
}

func serve(path string) error {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	requests := json.NewDecoder(in)
	out := json.NewEncoder(os.Stdout)
	for requests.More() {
		var s store
		if err := requests.Decode(&s); err != nil {
			return err
		}
		a, err := collect(path, s)
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

func collect(path string, s store) (a outcome, err error) {
	records := s.Records
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return a, err
	}
	options := *bolt.DefaultOptions
	options.NoSync = true
	bdb, err := bolt.Open(path, 0600, &options)
	if err != nil {
		return a, err
	}
	defer bdb.Close()
	mdb := metadata.NewDB(bdb, noContent{}, nil)
	ctx := context.Background()
	if err := mdb.Init(ctx); err != nil {
		return a, err
	}
	l := loader{db: mdb, now: time.Now()}
	if err := mdb.Update(func(tx *bolt.Tx) error {
		for i := range records {
			r := &records[i]
			if err := l.write(tx, r); err != nil {
				return fmt.Errorf("%s %q: %w", r.Kind, r.Name, err)
			}
		}
		return nil
	}); err != nil {
		return a, err
	}
	if s.Keep != "" {
		if err := bdb.View(func(tx *bolt.Tx) error { return tx.CopyFile(s.Keep, 0600) }); err != nil {
			return a, err
		}
	}
	for count := -1; count != len(a.Left); a.Runs++ {
		count = len(a.Left)
		if _, err := mdb.GarbageCollect(ctx); err != nil {
			return a, err
		}
		if a.Left, err = left(bdb); err != nil {
			return a, err
		}
	}
	return a, nil
}

// noContent is a content backend without content.
type noContent struct{ content.Store }

func (noContent) Walk(context.Context, content.WalkFunc, ...string) error { return nil }
func (noContent) ListStatuses(context.Context, ...string) ([]content.Status, error) {
	return nil, nil
}

// loader writes images, containers and leases through the package's API;
// blobs, snapshots and ingests, for which the API wants bytes in a backend, are
// put into their buckets as the package itself lays them out.
type loader struct {
	db  *metadata.DB
	now time.Time
}

func (l *loader) write(tx *bolt.Tx, r *record) error {
	ctx := metadata.WithTransactionContext(namespaces.WithNamespace(context.Background(), r.Namespace), tx)
	switch r.Kind {
	case "image":
		target := ocispec.Descriptor{MediaType: "application/x", Digest: digest.Digest(r.Target), Size: 1}
		_, err := metadata.NewImageStore(l.db).Create(ctx, images.Image{Name: r.Name, Labels: r.Labels, Target: target})
		return err
	case "container":
		_, err := metadata.NewContainerStore(l.db).Create(ctx, containers.Container{
			ID: r.Name, Labels: r.Labels,
			Runtime:     containers.RuntimeInfo{Name: "runtime"},
			Spec:        &types.Any{TypeUrl: "spec", Value: []byte{1}},
			Snapshotter: r.Snapshotter, SnapshotKey: r.SnapshotKey,
		})
		return err
	case "lease":
		manager := metadata.NewLeaseManager(l.db)
		lease, err := manager.Create(ctx, leases.WithID(r.Name), leases.WithLabels(r.Labels))
		if err != nil {
			return err
		}
		for _, res := range r.Resources {
			if err := manager.AddResource(ctx, lease, leases.Resource{ID: res.ID, Type: res.Type}); err != nil {
				return err
			}
		}
		return nil
	case "blob":
		b, err := bucket(tx, r.Namespace, "content", "blob", r.Name)
		if err != nil {
			return err
		}
		return l.describe(b, r, "size", []byte{2})
	case "snapshot":
		b, err := bucket(tx, r.Namespace, "snapshots", r.Snapshotter, r.Name)
		if err != nil {
			return err
		}
		if r.Parent != "" {
			if err := b.Put([]byte("parent"), []byte(r.Parent)); err != nil {
				return err
			}
		}
		return l.describe(b, r, "name", []byte(r.Namespace+"/1/"+r.Name))
	case "ingest":
		b, err := bucket(tx, r.Namespace, "content", "ingests", r.Name)
		if err != nil {
			return err
		}
		if r.ExpiresIn != nil {
			at, err := l.now.Add(time.Duration(*r.ExpiresIn)).UTC().MarshalBinary()
			if err != nil {
				return err
			}
			if err := b.Put([]byte("expireat"), at); err != nil {
				return err
			}
		}
		if r.Expected != "" {
			if err := b.Put([]byte("expected"), []byte(r.Expected)); err != nil {
				return err
			}
		}
		return b.Put([]byte("ref"), []byte(r.Namespace+"/1/"+r.Name))
	}
	return fmt.Errorf("unknown kind")
}

func (l *loader) describe(b *bolt.Bucket, r *record, field string, value []byte) error {
	if err := b.Put([]byte(field), value); err != nil {
		return err
	}
	if err := boltutil.WriteTimestamps(b, l.now, l.now); err != nil {
		return err
	}
	return boltutil.WriteLabels(b, r.Labels)
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

// left lists every record as kind|namespace|name.
func left(bdb *bolt.DB) ([]string, error) {
	all := []string{}
	err := bdb.View(func(tx *bolt.Tx) error {
		v1 := tx.Bucket([]byte("v1"))
		return children(v1, func(ns string, b *bolt.Bucket) error {
			add := func(kind, prefix string) func(string, *bolt.Bucket) error {
				return func(name string, _ *bolt.Bucket) error {
					all = append(all, kind+"|"+ns+"|"+prefix+name)
					return nil
				}
			}
			for kind, path := range map[string][]string{
				"image": {"images"}, "container": {"containers"}, "lease": {"leases"},
				"blob": {"content", "blob"}, "ingest": {"content", "ingests"},
			} {
				if err := children(find(b, path...), add(kind, "")); err != nil {
					return err
				}
			}
			return children(find(b, "snapshots"), func(name string, snapshots *bolt.Bucket) error {
				return children(snapshots, add("snapshot", name+"/"))
			})
		})
	})
	return all, err
}

func find(b *bolt.Bucket, path ...string) *bolt.Bucket {
	for _, name := range path {
		if b == nil {
			return nil
		}
		b = b.Bucket([]byte(name))
	}
	return b
}

func children(b *bolt.Bucket, fn func(string, *bolt.Bucket) error) error {
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		if v != nil {
			return nil
		}
		return fn(string(k), b.Bucket(k))
	})
}
