// Command live fills a bbolt file with records that have pages of their own, as
// containerd's have, and commits to it while it is read.
//
//	live fill FILE RECORDS VALUE       with one value of VALUE bytes in every 500th record
//	live run FILE PER_SECOND BURST     until standard input ends; each second commit is at its time, and every two seconds BURST
//	                                   follow one another without a pause. All synced, as containerd's are
//	live sum FILE                      of what bbolt reads: entries, and their SHA-256
//
// Eight counters, each in a bucket of its own, are alike after each commit, and
// say how many records there are and what the sum of their versions is.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math/rand"
	"os"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 4 && args[0] == "fill":
		err = fill(args[1], number(args[2]), number(args[3]))
	case len(args) == 4 && args[0] == "run":
		err = run(args[1], number(args[2]), number(args[3]))
	case len(args) == 2 && args[0] == "sum":
		err = sum(args[1])
	default:
		err = fmt.Errorf("fill FILE RECORDS VALUE, run FILE PER_SECOND BURST, or sum FILE")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "live:", err)
		os.Exit(1)
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

// As containerd opens its own.
func open(path string, noSync bool) (*bolt.DB, error) {
	options := *bolt.DefaultOptions
	options.NoFreelistSync = true
	options.NoSync = noSync
	return bolt.Open(path, 0600, &options)
}

type state struct{ commits, records, versions int }

func (s state) text() []byte {
	return []byte(fmt.Sprintf("%d %d %d", s.commits, s.records, s.versions))
}

func (s *state) keep(tx *bolt.Tx) error {
	s.commits++
	for i := 0; i < 8; i++ {
		b, err := tx.CreateBucketIfNotExists([]byte(fmt.Sprintf("counter-%d", i)))
		if err != nil {
			return err
		}
		if err := b.Put([]byte("state"), s.text()); err != nil {
			return err
		}
	}
	return nil
}

func fill(path string, records, value int) error {
	db, err := open(path, true)
	if err != nil {
		return err
	}
	defer db.Close()
	s := state{}
	for s.records < records {
		if err := db.Update(func(tx *bolt.Tx) error {
			all, err := tx.CreateBucketIfNotExists([]byte("records"))
			if err != nil {
				return err
			}
			all.FillPercent = 0.9
			for n := 0; n < 5000 && s.records < records; n++ {
				if err := put(all, fmt.Sprintf("record-%09d", 2*s.records), 1, value); err != nil {
					return err
				}
				s.records++
				s.versions++
			}
			return s.keep(tx)
		}); err != nil {
			return err
		}
	}
	return db.Sync()
}

func put(all *bolt.Bucket, name string, version, long int) error {
	record, err := all.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return err
	}
	bytes := make([]byte, 8)
	binary.LittleEndian.PutUint64(bytes, uint64(version))
	if err := record.Put([]byte("version"), bytes); err != nil {
		return err
	}
	labels, err := record.CreateBucketIfNotExists([]byte("labels"))
	if err != nil {
		return err
	}
	if err := labels.Put([]byte("name"), []byte(name)); err != nil {
		return err
	}
	if long == 0 || name[len(name)-3:] != "000" {
		return nil
	}
	value := make([]byte, long)
	copy(value, name)
	copy(value[long-len(name):], name)
	return record.Put([]byte("value"), value)
}

func read(tx *bolt.Tx) (s state, err error) {
	_, err = fmt.Sscanf(string(tx.Bucket([]byte("counter-0")).Get([]byte("state"))), "%d %d %d", &s.commits, &s.records, &s.versions)
	return s, err
}

func run(path string, perSecond, burst int) error {
	db, err := open(path, false)
	if err != nil {
		return err
	}
	defer db.Close()
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	var s state
	if err := db.View(func(tx *bolt.Tx) error { s, err = read(tx); return err }); err != nil {
		return err
	}
	fmt.Println("ready")
	first, random := s.commits, rand.New(rand.NewSource(1))
	limit := 2 * s.records
	last := time.Now()
	for {
		count := 1
		if burst > 0 && time.Since(last) > 2*time.Second {
			count, last = burst, time.Now()
		}
		for ; count > 0; count-- {
			if err := db.Update(func(tx *bolt.Tx) error { return s.change(tx, limit, random) }); err != nil {
				return err
			}
		}
		select {
		case <-ended:
			fmt.Println(s.commits - first)
			return nil
		case <-time.After(time.Second / time.Duration(perSecond)):
		}
	}
}

// change adds, changes and removes records, as an image that comes and one that goes.
func (s *state) change(tx *bolt.Tx, limit int, random *rand.Rand) error {
	all := tx.Bucket([]byte("records"))
	at := random.Intn(limit)
	for n := 0; n < 10; n++ {
		name := fmt.Sprintf("record-%09d", at+n)
		if n > 5 {
			name = fmt.Sprintf("record-%09d", random.Intn(limit))
		}
		version := 1
		if record := all.Bucket([]byte(name)); record != nil {
			before := int(binary.LittleEndian.Uint64(record.Get([]byte("version"))))
			if n%2 == 0 {
				if err := all.DeleteBucket([]byte(name)); err != nil {
					return err
				}
				s.records--
				s.versions -= before
				continue
			}
			version = before + 1
			s.versions -= before
			s.records--
		}
		if err := put(all, name, version, 0); err != nil {
			return err
		}
		s.records++
		s.versions += version
	}
	return s.keep(tx)
}

func sum(path string) error {
	db, err := bolt.Open(path, 0600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		h, entries := sha256.New(), 0
		var each func(b *bolt.Bucket) error
		each = func(b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				entries++
				add(h, k)
				if v != nil {
					add(h, v)
					return nil
				}
				return each(b.Bucket(k))
			})
		}
		err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			entries++
			add(h, name)
			return each(b)
		})
		fmt.Printf("%d %x\n", entries, h.Sum(nil))
		return err
	})
}

func add(h hash.Hash, part []byte) {
	h.Write(bytes.TrimRight(part, "\x00"))
	h.Write([]byte{0})
}
