// Command fill writes a meta.db as containerd lays it out, with as many records
// as it is told, and the metadata.db of its snapshotter, for the benchmark of
// reading them: fill META.DB METADATA.DB RECORDS.
//
// An image has a manifest, a config, eight layers and their eight snapshots, and
// two containers with a snapshot each: 22 records. One image in ten is gone, and
// left all that as garbage. The commits are larger than containerd's, and leave
// more free pages; so the file is compacted at the end.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

const layers = 8
const imagesPerCommit = 200

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "fill META.DB METADATA.DB RECORDS")
		os.Exit(2)
	}
	records, err := strconv.Atoi(os.Args[3])
	if err == nil {
		err = fill(os.Args[1], os.Args[2], records)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fill:", err)
		os.Exit(1)
	}
}

func fill(path, snapshots string, records int) error {
	db, err := create(path)
	if err != nil {
		return err
	}
	defer db.Close()
	disk, err := create(snapshots)
	if err != nil {
		return err
	}
	defer disk.Close()
	w := writer{want: records}
	for w.made < records {
		err := db.Update(func(tx *bolt.Tx) error {
			return disk.Update(func(on *bolt.Tx) error { return w.images(tx, on) })
		})
		if err != nil {
			return err
		}
	}
	if err := compact(db, path); err != nil {
		return err
	}
	if err := compact(disk, snapshots); err != nil {
		return err
	}
	fmt.Println(w.made)
	return nil
}

func create(path string) (*bolt.DB, error) {
	options := *bolt.DefaultOptions
	options.NoSync = true
	options.NoFreelistSync = true
	return bolt.Open(path, 0600, &options)
}

func compact(db *bolt.DB, path string) error {
	options := *bolt.DefaultOptions
	options.NoSync = true
	small, err := bolt.Open(path+".small", 0600, &options)
	if err != nil {
		return err
	}
	defer small.Close()
	if err := bolt.Compact(small, db, 64<<20); err != nil {
		return err
	}
	return os.Rename(path+".small", path)
}

type writer struct {
	want, made, image int
	// The snapshotter's snapshots.
	disk *bolt.Bucket
	err  error
}

// stamp is a time of its own for each record, as they have.
func (w *writer) stamp() []byte {
	bytes, err := time.Unix(1700000000, int64(w.made)).UTC().MarshalBinary()
	if err != nil {
		panic(err)
	}
	return bytes
}

func (w *writer) images(tx, disk *bolt.Tx) error {
	v1, err := tx.CreateBucketIfNotExists([]byte("v1"))
	if err != nil {
		return err
	}
	on, err := disk.CreateBucketIfNotExists([]byte("v1"))
	if err != nil {
		return err
	}
	w.disk = w.bucket(on, "snapshots")
	w.put(v1, "version", []byte{6})
	ns := w.bucket(v1, "k8s.io")
	for n := 0; n < imagesPerCommit && w.made < w.want && w.err == nil; n++ {
		w.one(ns)
	}
	return w.err
}

func (w *writer) one(ns *bolt.Bucket) {
	n := w.image
	w.image++
	manifest, config := digest("manifest", n), digest("config", n)
	blobs := w.bucket(w.bucket(ns, "content"), "blob")
	snapshots := w.bucket(w.bucket(ns, "snapshots"), "overlayfs")
	name := fmt.Sprintf("registry.example.com/team/service-%d:v1.2.3", n)
	live := n%10 != 9
	if live {
		image := w.record(w.bucket(ns, "images"), name, map[string]string{"io.cri-containerd.image": "managed"})
		target := w.bucket(image, "target")
		w.put(target, "digest", []byte(manifest))
		w.put(target, "mediatype", []byte("application/vnd.oci.image.manifest.v1+json"))
		w.put(target, "size", varint(1234))
	}
	refs := map[string]string{"containerd.io/gc.ref.content.config": config}
	parent := ""
	for l := 0; l < layers; l++ {
		layer := digest("layer", n*layers+l)
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", l)] = layer
		w.blob(blobs, layer, map[string]string{
			"containerd.io/uncompressed":                         digest("diff", n*layers+l),
			"containerd.io/distribution.source.registry.example": "team/service",
		})
		chain := digest("chain", n*layers+l)
		w.snapshot(snapshots, chain, parent, map[string]string{"containerd.io/snapshot.ref": chain})
		parent = chain
	}
	w.blob(blobs, manifest, refs)
	w.blob(blobs, config, map[string]string{"containerd.io/gc.ref.snapshot.overlayfs": parent})
	for c := 0; live && c < 2; c++ {
		id := digest("container", 2*n+c)[7:]
		w.snapshot(snapshots, id, parent, nil)
		container := w.record(w.bucket(ns, "containers"), id, map[string]string{
			"io.kubernetes.pod.namespace":  "production",
			"io.kubernetes.pod.name":       fmt.Sprintf("service-%d-6b7f9c8d5-x2x4z", n),
			"io.kubernetes.container.name": "service",
		})
		w.put(container, "image", []byte(name))
		w.put(container, "snapshotter", []byte("overlayfs"))
		w.put(container, "snapshotKey", []byte(id))
		w.put(container, "spec", message("types.containerd.io/opencontainers/runtime-spec/1/Spec", make([]byte, 3000)))
		w.put(w.bucket(container, "runtime"), "name", []byte("io.containerd.runc.v2"))
	}
}

func (w *writer) blob(blobs *bolt.Bucket, name string, labels map[string]string) {
	w.put(w.record(blobs, name, labels), "size", varint(1<<20))
}

func (w *writer) snapshot(snapshots *bolt.Bucket, key, parent string, labels map[string]string) {
	b := w.record(snapshots, key, labels)
	name := fmt.Sprintf("k8s.io/%d/%s", w.made, key)
	w.put(b, "name", []byte(name))
	w.onDisk(name, labels)
	if parent == "" {
		return
	}
	w.put(b, "parent", []byte(parent))
	w.put(w.bucket(snapshots.Bucket([]byte(parent)), "children"), key, []byte{})
}

// onDisk writes what the snapshotter has of a committed snapshot; no reader
// here follows its parents.
func (w *writer) onDisk(name string, labels map[string]string) {
	b := w.bucket(w.disk, name)
	w.fields(b, labels)
	id := make([]byte, binary.MaxVarintLen64)
	w.put(b, "id", id[:binary.PutUvarint(id, uint64(w.made))])
	w.put(b, "kind", []byte{3})
	w.put(b, "inodes", varint(120))
	w.put(b, "size", varint(3<<20))
}

func (w *writer) record(in *bolt.Bucket, name string, labels map[string]string) *bolt.Bucket {
	w.made++
	b := w.bucket(in, name)
	w.fields(b, labels)
	return b
}

func (w *writer) fields(b *bolt.Bucket, labels map[string]string) {
	stamp := w.stamp()
	w.put(b, "createdat", stamp)
	w.put(b, "updatedat", stamp)
	if len(labels) > 0 {
		l := w.bucket(b, "labels")
		for key, value := range labels {
			w.put(l, key, []byte(value))
		}
	}
}

func (w *writer) bucket(in *bolt.Bucket, name string) *bolt.Bucket {
	b, err := in.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		panic(err)
	}
	return b
}

func (w *writer) put(b *bolt.Bucket, key string, value []byte) {
	if err := b.Put([]byte(key), value); err != nil && w.err == nil {
		w.err = err
	}
}

func digest(kind string, n int) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(fmt.Sprintf("%s %d", kind, n))))
}

func varint(n int64) []byte {
	bytes := make([]byte, binary.MaxVarintLen64)
	return bytes[:binary.PutVarint(bytes, n)]
}

// message is a protobuf Any.
func message(url string, value []byte) []byte {
	all := append([]byte{0x0a, byte(len(url))}, url...)
	length := make([]byte, binary.MaxVarintLen64)
	all = append(append(all, 0x12), length[:binary.PutUvarint(length, uint64(len(value)))]...)
	return append(all, value...)
}
