package main

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/namespaces"
	bolt "go.etcd.io/bbolt"
)

const batch = 5000

type seeded struct {
	Images int `json:"images"`
}

// seed makes the image records that ../seed.ts makes on the other side: -lists
// in namespace list, -count in namespace bulk.
func seed(c *config) (interface{}, error) {
	file, err := bolt.Open(c.db, 0644, nil)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	db := metadata.NewDB(file, nil, nil)
	if err := db.Init(context.Background()); err != nil {
		return nil, err
	}
	store := metadata.NewImageStore(db)
	for _, part := range []struct {
		namespace string
		count     int
	}{{"list", c.lists}, {"bulk", c.count}} {
		ctx := namespaces.WithNamespace(context.Background(), part.namespace)
		for from := 0; from < part.count; from += batch {
			if err := db.Update(func(tx *bolt.Tx) error {
				ctx := metadata.WithTransactionContext(ctx, tx)
				for n := from; n < from+batch && n < part.count; n++ {
					if _, err := store.Create(ctx, picture(seedName(part.namespace, n))); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return nil, err
			}
		}
	}
	return seeded{c.lists + c.count}, nil
}

func seedName(namespace string, n int) string {
	return fmt.Sprintf("example.com/%s/%06d:latest", namespace, n)
}
