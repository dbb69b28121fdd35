// Command writer writes bbolt files for the tests of the reader, and judges those that we write.
//
//	writer fill FILE PAGESIZE KEYS   buckets of every form, then the same as JSON on standard output
//	writer dump FILE                 what bbolt says is in it, as JSON
//	writer far FILE PAGESIZE PAGES    newest pages after so many others, and the same as JSON: far.go
//	writer history DIR SEED PAGESIZE TRANSACTIONS   a root of containerd: history.go
//	writer images DIR PAGESIZE COMMITS SEED   a file after each of its commits: images.go
//	writer interrupt FILE            a commit whose pages are in the file, and whose meta page is not: interrupt.go
//	writer judge                     for each file named on standard input: bbolt's own check, then changes, then the check again; a line for each
//	writer run FILE [PAUSE]          commits until standard input ends, with a pause (20ms) behind each; every commit
//	                                 gives all counters its number
//
// What run writes can be judged by whoever reads it: the counters of one
// moment are all alike, however many pages they are spread over.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

func main() {
	err := fmt.Errorf("fill FILE PAGESIZE KEYS, dump FILE, far FILE PAGESIZE PAGES, history DIR SEED PAGESIZE TRANSACTIONS, images DIR PAGESIZE COMMITS SEED, interrupt FILE, judge, or run FILE [PAUSE]")
	if len(os.Args) == 5 && os.Args[1] == "fill" {
		pageSize, _ := strconv.Atoi(os.Args[3])
		keys, _ := strconv.Atoi(os.Args[4])
		err = fill(os.Args[2], pageSize, keys)
	} else if len(os.Args) == 6 && os.Args[1] == "history" {
		seed, _ := strconv.ParseInt(os.Args[3], 10, 64)
		pageSize, _ := strconv.Atoi(os.Args[4])
		transactions, _ := strconv.Atoi(os.Args[5])
		err = history(os.Args[2], seed, pageSize, transactions)
	} else if len(os.Args) == 5 && os.Args[1] == "far" {
		pageSize, _ := strconv.Atoi(os.Args[3])
		pages, _ := strconv.ParseUint(os.Args[4], 10, 64)
		err = far(os.Args[2], pageSize, pages)
	} else if len(os.Args) == 6 && os.Args[1] == "images" {
		pageSize, _ := strconv.Atoi(os.Args[3])
		commits, _ := strconv.Atoi(os.Args[4])
		seed, _ := strconv.ParseInt(os.Args[5], 10, 64)
		err = images(os.Args[2], pageSize, commits, seed)
	} else if len(os.Args) == 3 && os.Args[1] == "interrupt" {
		err = interrupt(os.Args[2])
	} else if len(os.Args) == 3 && os.Args[1] == "dump" {
		err = dump(os.Args[2])
	} else if len(os.Args) == 2 && os.Args[1] == "judge" {
		lines := bufio.NewScanner(os.Stdin)
		for err = nil; lines.Scan(); {
			verdict := "sound"
			if found := judge(lines.Text()); found != nil {
				verdict = found.Error()
			}
			fmt.Println(verdict)
		}
	} else if len(os.Args) >= 3 && os.Args[1] == "run" {
		pause := time.Duration(0)
		if len(os.Args) == 4 {
			pause, _ = time.ParseDuration(os.Args[3])
		}
		err = run(os.Args[2], pause)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

func open(path string, pageSize int) (*bolt.DB, error) {
	options := *bolt.DefaultOptions
	options.NoSync = true
	options.PageSize = pageSize
	return bolt.Open(path, 0600, &options)
}

// fill makes an inline bucket, an empty one, a deep one, one of many pages, a
// value of many pages, and removes every third key again.
func fill(path string, pageSize, keys int) error {
	db, err := open(path, pageSize)
	if err != nil {
		return err
	}
	defer db.Close()
	random := rand.New(rand.NewSource(int64(pageSize + keys)))
	for _, step := range []func(*bolt.Tx) error{
		func(tx *bolt.Tx) error {
			small, err := tx.CreateBucket([]byte("inline"))
			if err != nil {
				return err
			}
			if err := small.SetSequence(7); err != nil {
				return err
			}
			if err := small.Put([]byte("a"), []byte("1")); err != nil {
				return err
			}
			if _, err := tx.CreateBucket([]byte("none")); err != nil {
				return err
			}
			many, err := tx.CreateBucket([]byte("many"))
			if err != nil {
				return err
			}
			for i := 0; i < keys; i++ {
				value := strings.Repeat("v", random.Intn(200))
				if err := many.Put([]byte(fmt.Sprintf("key-%06d", random.Intn(1000000))), []byte(value)); err != nil {
					return err
				}
			}
			deep, err := tx.CreateBucket([]byte("deep"))
			for i := 0; i < 12 && err == nil; i++ {
				if err = deep.Put([]byte("level"), []byte(strconv.Itoa(i))); err == nil {
					deep, err = deep.CreateBucket([]byte(fmt.Sprintf("bucket-%d", i)))
				}
			}
			if err != nil {
				return err
			}
			return many.Put([]byte("large"), []byte(strings.Repeat("large", 20000)))
		},
		func(tx *bolt.Tx) error {
			many := tx.Bucket([]byte("many"))
			n := 0
			var gone [][]byte
			if err := many.ForEach(func(k, _ []byte) error {
				if n++; n%3 == 0 && string(k) != "large" {
					gone = append(gone, append([]byte{}, k...))
				}
				return nil
			}); err != nil {
				return err
			}
			for _, k := range gone {
				if err := many.Delete(k); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		if err := db.Update(step); err != nil {
			return err
		}
	}
	return printFacts(db)
}

func dump(path string) error {
	db, err := bolt.Open(path, 0600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return printFacts(db)
}

func check(db *bolt.DB) error {
	return db.View(func(tx *bolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = err
			}
		}
		return first
	})
}

// judge checks a file, changes something in every bucket of it, and checks it
// again. The file is changed.
func judge(path string) error {
	db, err := open(path, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := check(db); err != nil {
		return fmt.Errorf("as written: %w", err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return change(b) })
	})
	if err != nil {
		return fmt.Errorf("changing it: %w", err)
	}
	if err := check(db); err != nil {
		return fmt.Errorf("after changes: %w", err)
	}
	return nil
}

// change removes every second value of a bucket and of those in it, and adds one.
func change(b *bolt.Bucket) error {
	n := 0
	var gone, buckets [][]byte
	if err := b.ForEach(func(k, v []byte) error {
		if v == nil {
			buckets = append(buckets, append([]byte{}, k...))
		} else if n++; n%2 == 0 {
			gone = append(gone, append([]byte{}, k...))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, k := range buckets {
		if err := change(b.Bucket(k)); err != nil {
			return err
		}
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return b.Put([]byte("changed"), []byte(strings.Repeat("x", 100)))
}

func printFacts(db *bolt.DB) error {
	return db.View(func(tx *bolt.Tx) error {
		all := map[string]any{}
		if err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			found, err := contents(b)
			all[string(name)] = found
			return err
		}); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(all)
	})
}

func contents(b *bolt.Bucket) (map[string]any, error) {
	all := map[string]any{}
	err := b.ForEach(func(k, v []byte) error {
		if v != nil {
			all[string(k)] = string(v)
			return nil
		}
		found, err := contents(b.Bucket(k))
		all[string(k)] = found
		return err
	})
	return all, err
}

const buckets, counters = 40, 60

// run spreads the counters over buckets of their own pages and grows some of
// them each time, so that pages are freed and given out again all the time.
func run(path string, pause time.Duration) error {
	db, err := open(path, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	random := rand.New(rand.NewSource(1))
	for n := 1; ; n++ {
		if err := db.Update(func(tx *bolt.Tx) error { return step(tx, n, random) }); err != nil {
			return err
		}
		if n == 1 {
			fmt.Println("ready")
		}
		select {
		case <-ended:
			fmt.Println(n)
			return nil
		case <-time.After(pause):
		}
	}
}

func step(tx *bolt.Tx, n int, random *rand.Rand) error {
	for i := 0; i < buckets; i++ {
		b, err := tx.CreateBucketIfNotExists([]byte(fmt.Sprintf("bucket-%d", i)))
		if err != nil {
			return err
		}
		value := []byte(fmt.Sprintf("%d %s", n, strings.Repeat("x", random.Intn(300))))
		for c := 0; c < counters; c++ {
			if err := b.Put([]byte(fmt.Sprintf("counter-%d", c)), value); err != nil {
				return err
			}
		}
	}
	return nil
}
