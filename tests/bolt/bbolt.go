// bbolt itself, for the tests. "check FILE": tx.Check() and then all of it, a line each: path of buckets, key, value
// (hex). "make FILE": a database from such lines on standard input, written and rewritten so that there are free pages.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func dump(out *bufio.Writer, path string, bucket *bolt.Bucket) {
	must(bucket.ForEach(func(key, value []byte) error {
		if below := bucket.Bucket(key); value == nil && below != nil {
			name := path + "/" + hex.EncodeToString(key)
			fmt.Fprintf(out, "%s\n", name)
			dump(out, name, below)
			return nil
		}
		fmt.Fprintf(out, "%s %x %x\n", path, key, value)
		return nil
	}))
}

func check(name string) {
	db, err := bolt.Open(name, 0600, &bolt.Options{ReadOnly: true})
	must(err)
	out := bufio.NewWriter(os.Stdout)
	must(db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			must(err)
		}
		return tx.ForEach(func(key []byte, bucket *bolt.Bucket) error {
			name := "/" + hex.EncodeToString(key)
			fmt.Fprintf(out, "%s\n", name)
			dump(out, name, bucket)
			return nil
		})
	}))
	out.Flush()
	must(db.Close())
}

func make_(name string, noise int) {
	db, err := bolt.Open(name, 0600, nil)
	must(err)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	var all []string
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	for round := 0; round < 2; round++ {
		must(db.Update(func(tx *bolt.Tx) error {
			for _, line := range all {
				fields := strings.Split(line, " ")
				var bucket *bolt.Bucket
				for _, part := range strings.Split(fields[0], "/")[1:] {
					key, err := hex.DecodeString(part)
					must(err)
					if bucket == nil {
						bucket, err = tx.CreateBucketIfNotExists(key)
					} else {
						bucket, err = bucket.CreateBucketIfNotExists(key)
					}
					must(err)
				}
				if len(fields) == 3 {
					key, err := hex.DecodeString(fields[1])
					must(err)
					value, err := hex.DecodeString(fields[2])
					must(err)
					must(bucket.Put(key, value))
				}
			}
			if round == 0 {
				bucket, err := tx.CreateBucket([]byte("\x00noise"))
				must(err)
				for number := 0; number < noise; number++ {
					must(bucket.Put([]byte(fmt.Sprintf("%08d", number)), make([]byte, 100)))
				}
			} else {
				must(tx.DeleteBucket([]byte("\x00noise")))
			}
			return nil
		}))
	}
	must(db.Close())
}

func main() {
	if os.Args[1] == "check" {
		check(os.Args[2])
	} else {
		make_(os.Args[2], 5000)
	}
}
