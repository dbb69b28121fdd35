package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"time"

	bolt "go.etcd.io/bbolt"
)

// history makes a root as containerd leaves it after many transactions, each
// of which adds, changes or removes something: meta.db with its options, the
// files of the blobs, and the metadata of a snapshotter. It prints every
// version of every record that there ever was, and in the end which are left:
//
//   - path key fields     - path key fields     = path key fields
func history(dir string, seed int64, pageSize, transactions int) error {
	h := &host{dir: dir, random: rand.New(rand.NewSource(seed)), printed: map[string]bool{}, out: bufio.NewWriter(os.Stdout)}
	defer h.out.Flush()
	for _, made := range []string{h.metadata(), filepath.Join(h.content(), "x"), h.snapshotter()} {
		if err := os.MkdirAll(filepath.Dir(made), 0700); err != nil {
			return err
		}
	}
	options := *bolt.DefaultOptions
	options.NoSync, options.NoFreelistSync, options.PageSize = true, true, pageSize
	db, err := bolt.Open(h.metadata(), 0644, &options)
	if err != nil {
		return err
	}
	defer db.Close()
	options.NoFreelistSync = false
	snapshots, err := bolt.Open(h.snapshotter(), 0600, &options)
	if err != nil {
		return err
	}
	defer snapshots.Close()
	for n := 0; n < transactions; n++ {
		h.now = time.Unix(1700000000+int64(n), int64(h.random.Intn(1e9))).UTC()
		if err := db.Update(func(tx *bolt.Tx) error {
			return snapshots.Update(func(stx *bolt.Tx) error { return h.step(tx, stx, n) })
		}); err != nil {
			return err
		}
		if err := db.View(func(tx *bolt.Tx) error {
			if n == transactions*3/4 {
				if err := tx.CopyFile(h.metadata()+".before", 0600); err != nil {
					return err
				}
			}
			return h.print(tx, '+')
		}); err != nil {
			return err
		}
	}
	return db.View(func(tx *bolt.Tx) error { return h.print(tx, '=') })
}

type image struct {
	namespace, name string
	layers          [][]byte
	blobs           []string
	snapshots       []string
}

type host struct {
	dir    string
	random *rand.Rand
	now    time.Time
	images []image
	// path and name of containers, leases and ingests
	others  [][]string
	printed map[string]bool
	out     *bufio.Writer
	next    int
}

func (h *host) metadata() string {
	return filepath.Join(h.dir, "io.containerd.metadata.v1.bolt", "meta.db")
}
func (h *host) content() string {
	return filepath.Join(h.dir, "io.containerd.content.v1.content", "blobs", "sha256")
}
func (h *host) snapshotter() string {
	return filepath.Join(h.dir, "io.containerd.snapshotter.v1.overlayfs", "metadata.db")
}

func (h *host) step(tx, stx *bolt.Tx, n int) error {
	v1, err := tx.CreateBucketIfNotExists([]byte("v1"))
	if err != nil {
		return err
	}
	if n == 0 {
		return v1.Put([]byte("version"), varint(3))
	}
	namespace := []string{"default", "k8s.io"}[h.random.Intn(2)]
	switch which := h.random.Intn(12); {
	case which < 4 || len(h.images) < 5:
		return h.addImage(v1, stx, h.newImage(namespace))
	case which < 5:
		return h.copyImage(v1, stx)
	case which < 6:
		return h.changeImage(v1)
	case which < 8:
		return h.removeImage(v1, stx)
	case which < 11 || len(h.others) < 3:
		return h.addOther(v1, namespace)
	default:
		i := h.random.Intn(len(h.others))
		gone := h.others[i]
		h.others = append(h.others[:i], h.others[i+1:]...)
		return at(v1, gone[:len(gone)-1]...).DeleteBucket([]byte(gone[len(gone)-1]))
	}
}

// at is the bucket of a path, made where it is not there.
func at(b *bolt.Bucket, path ...string) *bolt.Bucket {
	for _, name := range path {
		next, err := b.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			panic(err)
		}
		b = next
	}
	return b
}

func put(b *bolt.Bucket, key string, value []byte) {
	if err := b.Put([]byte(key), value); err != nil {
		panic(err)
	}
}

func varint(n int64) []byte {
	b := make([]byte, binary.MaxVarintLen64)
	return b[:binary.PutVarint(b, n)]
}

// message is a protobuf Any.
func message(url, value string) []byte {
	b := append([]byte{0x0a}, binary.AppendUvarint(nil, uint64(len(url)))...)
	b = append(append(b, url...), 0x12)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

func (h *host) times(b *bolt.Bucket, names ...string) {
	value, err := h.now.MarshalBinary()
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		put(b, name, value)
	}
}

func (h *host) blob(v1 *bolt.Bucket, namespace string, bytes []byte, labels map[string]string) string {
	sum := sha256.Sum256(bytes)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	if err := os.WriteFile(filepath.Join(h.content(), digest[7:]), bytes, 0444); err != nil {
		panic(err)
	}
	b := at(v1, namespace, "content", "blob", digest)
	h.times(b, "createdat", "updatedat")
	put(b, "size", varint(int64(len(bytes))))
	if len(labels) > 0 {
		set := at(b, "labels")
		for key, value := range labels {
			put(set, key, []byte(value))
		}
	}
	return digest
}

func (h *host) bytes(n int) []byte {
	b := make([]byte, n)
	h.random.Read(b)
	return b
}

func (h *host) newImage(namespace string) image {
	h.next++
	one := image{namespace: namespace, name: fmt.Sprintf("registry.example.com/%x/image-%d:%d", h.bytes(1+h.random.Intn(9)), h.next, h.random.Intn(100))}
	for i := 0; i <= h.random.Intn(3); i++ {
		one.layers = append(one.layers, h.bytes(50+h.random.Intn(3000)))
	}
	return one
}

// copyImage gives the other namespace what one has: names, blobs and chains are then the same in both.
func (h *host) copyImage(v1 *bolt.Bucket, stx *bolt.Tx) error {
	one := h.images[h.random.Intn(len(h.images))]
	other := image{namespace: map[string]string{"default": "k8s.io", "k8s.io": "default"}[one.namespace], name: one.name, layers: one.layers}
	for _, there := range h.images {
		if there.namespace == other.namespace && there.name == other.name {
			return h.addImage(v1, stx, h.newImage(one.namespace))
		}
	}
	return h.addImage(v1, stx, other)
}

func (h *host) addImage(v1 *bolt.Bucket, stx *bolt.Tx, one image) error {
	namespace := one.namespace
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	var layers []descriptor
	var diffs []string
	chain := ""
	labels := map[string]string{}
	for i, bytes := range one.layers {
		digest := h.blob(v1, namespace, bytes, map[string]string{"containerd.io/distribution.source.example.com": one.name})
		layers = append(layers, descriptor{"application/vnd.oci.image.layer.v1.tar+gzip", digest, len(bytes)})
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = digest
		diff := fmt.Sprintf("sha256:%x", sha256.Sum256(bytes[:40]))
		diffs = append(diffs, diff)
		parent := chain
		if chain == "" {
			chain = diff
		} else {
			chain = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(chain+" "+diff)))
		}
		h.snapshot(v1, stx, namespace, chain, parent)
		one.snapshots = append(one.snapshots, chain)
		one.blobs = append(one.blobs, digest)
	}
	config, _ := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	configDigest := h.blob(v1, namespace, config, map[string]string{"containerd.io/gc.ref.snapshot.overlayfs": chain})
	manifest, _ := json.Marshal(map[string]any{"schemaVersion": 2,
		"config": descriptor{"application/vnd.oci.image.config.v1+json", configDigest, len(config)}, "layers": layers})
	labels["containerd.io/gc.ref.content.config"] = configDigest
	digest := h.blob(v1, namespace, manifest, labels)
	one.blobs = append(one.blobs, configDigest, digest)
	b := at(v1, namespace, "images", one.name)
	h.times(b, "createdat", "updatedat")
	target := at(b, "target")
	put(target, "digest", []byte(digest))
	put(target, "mediatype", []byte("application/vnd.oci.image.manifest.v1+json"))
	put(target, "size", varint(int64(len(manifest))))
	h.images = append(h.images, one)
	return nil
}

func (h *host) snapshot(v1 *bolt.Bucket, stx *bolt.Tx, namespace, key, parent string) {
	all := at(v1, namespace, "snapshots", "overlayfs")
	id, _ := all.NextSequence()
	name := fmt.Sprintf("%s/%d/%s", namespace, id, key)
	b := at(all, key)
	h.times(b, "createdat", "updatedat")
	put(b, "name", []byte(name))
	schema, err := stx.CreateBucketIfNotExists([]byte("v1"))
	if err != nil {
		panic(err)
	}
	backend := at(schema, "snapshots")
	n, _ := backend.NextSequence()
	stored := at(backend, name)
	h.times(stored, "createdat", "updatedat")
	put(stored, "id", binary.AppendUvarint(nil, n))
	put(stored, "kind", []byte{3})
	if parent != "" {
		put(b, "parent", []byte(parent))
		put(at(all, parent, "children"), key, nil)
		put(stored, "parent", at(all, parent).Get([]byte("name")))
	}
	set := at(b, "labels")
	put(set, "containerd.io/snapshot.ref", []byte(key))
}

func (h *host) changeImage(v1 *bolt.Bucket) error {
	one := h.images[h.random.Intn(len(h.images))]
	b := at(v1, one.namespace, "images", one.name)
	h.times(b, "updatedat")
	put(at(b, "labels"), fmt.Sprintf("label-%d", h.random.Intn(5)), []byte(fmt.Sprintf("%x", h.bytes(h.random.Intn(20)))))
	return nil
}

func (h *host) removeImage(v1 *bolt.Bucket, stx *bolt.Tx) error {
	i := h.random.Intn(len(h.images))
	one := h.images[i]
	h.images = append(h.images[:i], h.images[i+1:]...)
	at(v1, one.namespace, "images").DeleteBucket([]byte(one.name))
	for _, digest := range one.blobs {
		at(v1, one.namespace, "content", "blob").DeleteBucket([]byte(digest))
		if !h.isUsed(digest) {
			os.Remove(filepath.Join(h.content(), digest[7:]))
		}
	}
	all := at(v1, one.namespace, "snapshots", "overlayfs")
	for n := len(one.snapshots) - 1; n >= 0; n-- {
		name := append([]byte{}, at(all, one.snapshots[n]).Get([]byte("name"))...)
		all.DeleteBucket([]byte(one.snapshots[n]))
		stx.Bucket([]byte("v1")).Bucket([]byte("snapshots")).DeleteBucket(name)
	}
	return nil
}

func (h *host) isUsed(digest string) bool {
	for _, one := range h.images {
		for _, blob := range one.blobs {
			if blob == digest {
				return true
			}
		}
	}
	return false
}

func (h *host) addOther(v1 *bolt.Bucket, namespace string) error {
	h.next++
	name := fmt.Sprintf("%x-%d", h.bytes(h.random.Intn(16)), h.next)
	var path []string
	switch h.random.Intn(4) {
	case 0:
		path = []string{namespace, "leases", name}
		b := at(v1, path...)
		h.times(b, "createdat")
		put(at(b, "labels"), "containerd.io/gc.expire", []byte(h.now.Format(time.RFC3339)))
		for _, one := range h.images {
			if one.namespace == namespace && h.random.Intn(10) == 0 {
				put(at(b, "content"), one.blobs[0], nil)
			}
		}
	case 1:
		path = []string{namespace, "content", "ingests", name}
		b := at(v1, path...)
		h.times(b, "expireat")
		put(b, "ref", []byte(fmt.Sprintf("%s/1/%s", namespace, name)))
	default:
		path = []string{namespace, "containers", name}
		b := at(v1, path...)
		h.times(b, "createdat", "updatedat")
		put(b, "image", []byte("image"))
		put(b, "snapshotter", []byte("overlayfs"))
		put(b, "snapshotKey", []byte(name))
		put(b, "spec", message("spec", fmt.Sprintf(`{"ociVersion":"1.0.2","args":["%x"]}`, h.bytes(h.random.Intn(3000)))))
		put(at(b, "runtime"), "name", []byte("io.containerd.runc.v2"))
	}
	h.others = append(h.others, path)
	return nil
}

// print writes the records that were not printed before, or all of them.
func (h *host) print(tx *bolt.Tx, mark byte) error {
	return tx.Bucket([]byte("v1")).ForEach(func(namespace, v []byte) error {
		if v != nil {
			return nil
		}
		ns := tx.Bucket([]byte("v1")).Bucket(namespace)
		for _, path := range [][]string{{"images"}, {"containers"}, {"leases"}, {"content", "blob"}, {"content", "ingests"}, {"snapshots", "overlayfs"}} {
			b := ns
			for _, name := range path {
				if b = b.Bucket([]byte(name)); b == nil {
					break
				}
			}
			if b == nil {
				continue
			}
			if err := b.ForEach(func(key, _ []byte) error {
				line := fmt.Sprintf("%s/%s %s %s", namespace, filepath.Join(path...), key, fields(b.Bucket(key)))
				if mark == '=' || !h.printed[line] {
					h.printed[line] = true
					fmt.Fprintf(h.out, "%c %s\n", mark, line)
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// fields are a record as text, without the children of a snapshot: salvage makes these anew.
func fields(b *bolt.Bucket) string {
	var all []string
	b.ForEach(func(k, v []byte) error {
		switch {
		case v != nil:
			all = append(all, fmt.Sprintf("%s=%x", k, v))
		case string(k) != "children":
			all = append(all, fmt.Sprintf("%s=%s", k, fields(b.Bucket(k))))
		}
		return nil
	})
	sort.Strings(all)
	return fmt.Sprintf("{%x}", sha256.Sum256([]byte(fmt.Sprint(all))))
}
