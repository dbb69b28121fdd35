package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// store is the DB opened as containerd opens it, over backends that hold names
// in memory and no bytes, so that what is measured is the store itself.
// ebbtide is measured over backends of the same kind.
type store struct {
	bdb    *bolt.DB
	mdb    *metadata.DB
	openMS float64
	// Memory that holds the backends' names.
	backendBytes int64
}

func open(path string) (*store, error) {
	start := time.Now()
	bdb, err := bolt.Open(path, 0644, bolt.DefaultOptions)
	if err != nil {
		return nil, err
	}
	blobs := &namedContent{}
	snaps := &namedSnapshots{parents: map[string]string{}}
	mdb := metadata.NewDB(bdb, blobs, map[string]snapshots.Snapshotter{snapshotterName: snaps})
	if err := mdb.Init(context.Background()); err != nil {
		return nil, err
	}
	s := &store{bdb: bdb, mdb: mdb, openMS: ms(time.Since(start))}
	settle()
	before := resident().Anon
	if err := fillBackends(bdb, blobs, snaps); err != nil {
		return nil, err
	}
	settle()
	s.backendBytes = resident().Anon - before
	return s, nil
}

// settle gives back what is not in use, so that memory can be compared.
func settle() {
	runtime.GC()
	debug.FreeOSMemory()
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// fillBackends lets the backends hold what the records name. Reading all
// records also brings the whole file into memory, as a store in use has it.
func fillBackends(bdb *bolt.DB, blobs *namedContent, snaps *namedSnapshots) error {
	seen := map[string]bool{}
	return bdb.View(func(tx *bolt.Tx) error {
		v1 := tx.Bucket([]byte("v1"))
		return v1.ForEach(func(ns, v []byte) error {
			if v != nil {
				return nil
			}
			if b := find(v1, string(ns), "content", "blob"); b != nil {
				if err := b.ForEach(func(k, _ []byte) error {
					if d := string(k); !seen[d] {
						seen[d] = true
						blobs.digests = append(blobs.digests, digest.Digest(d))
					}
					return walk(b.Bucket(k))
				}); err != nil {
					return err
				}
			}
			if b := find(v1, string(ns), "content", "ingests"); b != nil {
				if err := b.ForEach(func(k, _ []byte) error {
					blobs.refs = append(blobs.refs, string(b.Bucket(k).Get([]byte("ref"))))
					return nil
				}); err != nil {
					return err
				}
			}
			if b := find(v1, string(ns), "snapshots", snapshotterName); b != nil {
				return b.ForEach(func(k, _ []byte) error {
					one := b.Bucket(k)
					parent := ""
					if p := one.Get([]byte("parent")); p != nil {
						parent = string(b.Bucket(p).Get([]byte("name")))
					}
					snaps.add(string(one.Get([]byte("name"))), parent)
					return walk(one)
				})
			}
			return nil
		})
	})
}

func find(b *bolt.Bucket, path ...string) *bolt.Bucket {
	for _, name := range path {
		if b = b.Bucket([]byte(name)); b == nil {
			return nil
		}
	}
	return b
}

func walk(b *bolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return walk(b.Bucket(k))
		}
		return nil
	})
}

var errNoBytes = errors.New("this backend holds names only")

// namedContent is a content backend of names. Embedding the nil interface
// leaves out what a collection does not call.
type namedContent struct {
	content.Store
	digests []digest.Digest
	refs    []string
	gone    map[string]bool
}

func (c *namedContent) Walk(_ context.Context, fn content.WalkFunc, _ ...string) error {
	c.gone = map[string]bool{}
	for _, d := range c.digests {
		if err := fn(content.Info{Digest: d}); err != nil {
			return err
		}
	}
	kept := c.digests[:0]
	for _, d := range c.digests {
		if !c.gone[string(d)] {
			kept = append(kept, d)
		}
	}
	c.digests = kept
	return nil
}

func (c *namedContent) WalkStatusRefs(_ context.Context, fn func(string) error) error {
	c.gone = map[string]bool{}
	for _, r := range c.refs {
		if err := fn(r); err != nil {
			return err
		}
	}
	kept := c.refs[:0]
	for _, r := range c.refs {
		if !c.gone[r] {
			kept = append(kept, r)
		}
	}
	c.refs = kept
	return nil
}

func (c *namedContent) Delete(_ context.Context, d digest.Digest) error {
	c.gone[string(d)] = true
	return nil
}

func (c *namedContent) Abort(_ context.Context, ref string) error {
	c.gone[ref] = true
	return nil
}

// namedSnapshots is a snapshotter of names.
type namedSnapshots struct {
	mu      sync.Mutex
	parents map[string]string
}

func (s *namedSnapshots) add(name, parent string) { s.parents[name] = parent }

func (s *namedSnapshots) Walk(ctx context.Context, fn snapshots.WalkFunc, _ ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, parent := range s.parents {
		if err := fn(ctx, snapshots.Info{Name: name, Parent: parent, Kind: snapshots.KindCommitted}); err != nil {
			return err
		}
	}
	return nil
}

func (s *namedSnapshots) Remove(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.parents, key)
	return nil
}

func (s *namedSnapshots) Prepare(_ context.Context, key, parent string, _ ...snapshots.Opt) ([]mount.Mount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(key, parent)
	return nil, nil
}

func (s *namedSnapshots) View(ctx context.Context, key, parent string, o ...snapshots.Opt) ([]mount.Mount, error) {
	return s.Prepare(ctx, key, parent, o...)
}
func (s *namedSnapshots) Commit(context.Context, string, string, ...snapshots.Opt) error {
	return errNoBytes
}
func (s *namedSnapshots) Mounts(context.Context, string) ([]mount.Mount, error) { return nil, nil }
func (s *namedSnapshots) Stat(_ context.Context, key string) (snapshots.Info, error) {
	return snapshots.Info{Name: key}, nil
}
func (s *namedSnapshots) Update(_ context.Context, i snapshots.Info, _ ...string) (snapshots.Info, error) {
	return i, nil
}
func (s *namedSnapshots) Usage(context.Context, string) (snapshots.Usage, error) {
	return snapshots.Usage{}, nil
}
func (s *namedSnapshots) Close() error { return nil }

// memory is the process's resident memory in bytes: its own, and mapped files.
type memory struct {
	Anon int64 `json:"anonBytes"`
	File int64 `json:"fileBytes"`
}

func resident() (m memory) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return m
	}
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "RssAnon:":
			m.Anon = n << 10
		case "RssFile:":
			m.File = n << 10
		}
	}
	return m
}

// peakWhile runs fn and returns the most memory seen during it.
func peakWhile(fn func() error) (memory, error) {
	stop, done := make(chan struct{}), make(chan memory)
	go func() {
		peak := resident()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				done <- peak
				return
			case <-tick.C:
				now := resident()
				if now.Anon > peak.Anon {
					peak.Anon = now.Anon
				}
				if now.File > peak.File {
					peak.File = now.File
				}
			}
		}
	}()
	err := fn()
	close(stop)
	return <-done, err
}
