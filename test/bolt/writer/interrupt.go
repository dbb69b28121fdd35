package main

import (
	"bytes"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
)

// interrupt leaves a file as a kill within a commit does: the pages of a
// transaction are written, into free ones and after the end, and the meta page
// that would name them is not, but is in FILE.metas. The transaction changes,
// removes and adds records in every bucket of records.
func interrupt(path string) error {
	options := *bolt.DefaultOptions
	options.NoSync, options.NoFreelistSync = true, true
	db, err := bolt.Open(path, 0600, &options)
	if err != nil {
		return err
	}
	defer db.Close()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	metas := make([]byte, 2*db.Info().PageSize)
	if _, err := file.ReadAt(metas, 0); err != nil {
		return err
	}
	now := time.Unix(1800000000, 0).UTC()
	later := func() []byte {
		now = now.Add(time.Nanosecond)
		value, err := now.MarshalBinary()
		if err != nil {
			panic(err)
		}
		return value
	}
	if err := db.Update(func(tx *bolt.Tx) error { return changeAll(tx.Bucket([]byte("v1")), later) }); err != nil {
		return err
	}
	written := make([]byte, len(metas))
	if _, err := file.ReadAt(written, 0); err != nil {
		return err
	}
	if err := os.WriteFile(path+".metas", written, 0600); err != nil {
		return err
	}
	_, err = file.WriteAt(metas, 0)
	return err
}

func changeAll(b *bolt.Bucket, later func() []byte) error {
	var keys [][]byte
	if err := b.ForEach(func(key, value []byte) error {
		if value == nil {
			keys = append(keys, append([]byte{}, key...))
		}
		return nil
	}); err != nil {
		return err
	}
	for n, key := range keys {
		record := b.Bucket(key)
		if record.Get([]byte("createdat")) == nil {
			if err := changeAll(record, later); err != nil {
				return err
			}
			continue
		}
		// Snapshots have their keys in their names, and blobs and layers are called by what is in them.
		isCopied := record.Get([]byte("name")) == nil && !bytes.HasPrefix(key, []byte("sha256:"))
		switch {
		case n%5 == 0:
			if err := b.DeleteBucket(key); err != nil {
				return err
			}
		case n%5 == 1 && isCopied:
			added, err := b.CreateBucket(append(key, "-added"...))
			if err != nil {
				return err
			}
			if err := copyAll(record, added); err != nil {
				return err
			}
			made := later()
			for _, name := range []string{"createdat", "updatedat"} {
				if record.Get([]byte(name)) == nil {
					continue
				}
				if err := added.Put([]byte(name), made); err != nil {
					return err
				}
			}
		default:
			if record.Get([]byte("updatedat")) != nil {
				if err := record.Put([]byte("updatedat"), later()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func copyAll(from, to *bolt.Bucket) error {
	return from.ForEach(func(key, value []byte) error {
		if value != nil {
			return to.Put(key, value)
		}
		inner, err := to.CreateBucket(key)
		if err != nil {
			return err
		}
		return copyAll(from.Bucket(key), inner)
	})
}
