package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// images commits to DIR/file.db, and keeps the file as it is after each commit:
// DIR/0, DIR/1, … Records have pages of their own, as containerd's have. A
// commit changes, adds and removes some, mostly few, sometimes none, sometimes
// hundreds; some have values of several pages.
func images(dir string, pageSize, commits int, seed int64) error {
	path := filepath.Join(dir, "file.db")
	db, err := open(path, pageSize)
	if err != nil {
		return err
	}
	defer db.Close()
	random := rand.New(rand.NewSource(seed))
	for n := 0; n <= commits; n++ {
		changes := []int{0, 1, 1, 1, 2, 2, 5, 40}[random.Intn(8)]
		if n == 0 {
			changes = 600
		}
		if err := db.Update(func(tx *bolt.Tx) error { return changeRecords(tx, changes, n, random) }); err != nil {
			return err
		}
		bytes, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), bytes, 0600); err != nil {
			return err
		}
	}
	return os.Remove(path)
}

func changeRecords(tx *bolt.Tx, changes, n int, random *rand.Rand) error {
	v1, err := tx.CreateBucketIfNotExists([]byte("v1"))
	if err != nil || changes == 0 {
		return err
	}
	if err := v1.Put([]byte("commit"), []byte(fmt.Sprint(n))); err != nil {
		return err
	}
	for ; changes > 0; changes-- {
		namespace, err := v1.CreateBucketIfNotExists([]byte(fmt.Sprintf("namespace-%d", random.Intn(3))))
		if err != nil {
			return err
		}
		records, err := namespace.CreateBucketIfNotExists([]byte("records"))
		if err != nil {
			return err
		}
		name := []byte(fmt.Sprintf("record-%03d", random.Intn(300)))
		if random.Intn(4) == 0 {
			if records.Bucket(name) != nil {
				err = records.DeleteBucket(name)
			}
		} else {
			err = putRecord(records, name, n, random)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func putRecord(records *bolt.Bucket, name []byte, n int, random *rand.Rand) error {
	record, err := records.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	length := 30 + random.Intn(700)
	if random.Intn(20) == 0 {
		length = 10000
	}
	if err := record.Put([]byte("changed"), []byte(fmt.Sprint(n))); err != nil {
		return err
	}
	return record.Put([]byte("value"), []byte(strings.Repeat("v", length)))
}
