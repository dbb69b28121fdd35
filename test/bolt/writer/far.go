package main

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// far makes a file whose newest pages come after `pages` others, which have no
// bytes on disk: its meta pages are told that they are in use. Then the same as JSON.
func far(path string, pageSize int, pages uint64) error {
	if err := fillFar(path, pageSize, "near"); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	for i := 0; i < 2; i++ {
		meta := make([]byte, 64)
		at := int64(i*pageSize + 16)
		if _, err := file.ReadAt(meta, at); err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(meta[40:], pages)
		sum := fnv.New64a()
		sum.Write(meta[:56])
		binary.LittleEndian.PutUint64(meta[56:], sum.Sum64())
		if _, err := file.WriteAt(meta, at); err != nil {
			return err
		}
	}
	if err := file.Truncate(int64(pages) * int64(pageSize)); err != nil {
		return err
	}
	if err := fillFar(path, pageSize, "far"); err != nil {
		return err
	}
	return dump(path)
}

func fillFar(path string, pageSize int, name string) error {
	db, err := open(path, pageSize)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(name))
		for i := 0; err == nil && i < 200; i++ {
			err = b.Put([]byte(fmt.Sprintf("key-%03d", i)), []byte(strings.Repeat("v", 10*i)))
		}
		if err != nil {
			return err
		}
		return b.Put([]byte("long"), []byte(strings.Repeat("long", 5000)))
	})
}
