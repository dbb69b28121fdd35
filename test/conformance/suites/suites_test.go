// Containerd's own exported suites, run over a socket through its proxy content
// store and proxy snapshotters against whatever server listens there.
//
// Built with `go test -c` from Debian's packages (see ../go-programs.ts); the
// address comes in SUITES_ADDRESS, the tests to run in -test.run.
package suites

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	contentsuite "github.com/containerd/containerd/content/testsuite"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	snapshotsuite "github.com/containerd/containerd/snapshots/testsuite"
)

func dial(t testing.TB) *containerd.Client {
	client, err := containerd.New(os.Getenv("SUITES_ADDRESS"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// inNamespace gives a new namespace, whose content other ones may share.
type inNamespace = func(ctx context.Context, shareable bool) (context.Context, func(context.Context) error, error)

// contentStore gives every test (and every further context a test asks for) a
// namespace and a lease of its own.
func contentStore(client *containerd.Client) contentsuite.StoreInitFn {
	var namespacesMade uint64
	return func(ctx context.Context, _ string) (context.Context, content.Store, func() error, error) {
		name := contentsuite.Name(ctx)
		wrap := wrapper(func(ctx context.Context, shareable bool) (context.Context, func(context.Context) error, error) {
			n := atomic.AddUint64(&namespacesMade, 1)
			namespace := fmt.Sprintf("%s-%d", name, n)
			if shareable {
				l := map[string]string{"containerd.io/namespace.shareable": "true"}
				if err := client.NamespaceService().Create(ctx, namespace, l); err != nil {
					return nil, nil, err
				}
			}
			return client.WithLease(namespaces.WithNamespace(ctx, namespace))
		})
		return contentsuite.SetContextWrapper(ctx, wrap), client.ContentStore(), func() error { return nil }, nil
	}
}

func TestContent(t *testing.T) {
	contentsuite.ContentSuite(t, "content", contentStore(dial(t)))
}

func TestContentShared(t *testing.T) {
	contentsuite.ContentCrossNSSharedSuite(t, "shared", contentStore(dial(t)))
}

func TestContentIsolated(t *testing.T) {
	contentsuite.ContentCrossNSIsolatedSuite(t, "isolated", contentStore(dial(t)))
}

// The suite runs its tests one at a time (-test.parallel 1), all in the same
// namespace, so each starts with what its predecessors left removed.
func snapshotter(client *containerd.Client, name string) snapshotsuite.SnapshotterFunc {
	return func(ctx context.Context, _ string) (snapshots.Snapshotter, func() error, error) {
		sn := client.SnapshotService(name)
		return sn, func() error { return removeAll(ctx, sn) }, nil
	}
}

// removeAll removes every snapshot, children first.
func removeAll(ctx context.Context, sn snapshots.Snapshotter) error {
	left := map[string]string{}
	if err := sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		left[info.Name] = info.Parent
		return nil
	}); err != nil {
		return err
	}
	for len(left) > 0 {
		parents := map[string]bool{}
		for _, parent := range left {
			parents[parent] = true
		}
		removed := 0
		for name := range left {
			if parents[name] {
				continue
			}
			if err := sn.Remove(ctx, name); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
			delete(left, name)
			removed++
		}
		if removed == 0 {
			return fmt.Errorf("the parents of %d snapshots form a circle", len(left))
		}
	}
	return nil
}

func TestNative(t *testing.T) {
	snapshotsuite.SnapshotterSuite(t, "native", snapshotter(dial(t), "native"))
}

func TestOverlayfs(t *testing.T) {
	snapshotsuite.SnapshotterSuite(t, "overlayfs", snapshotter(dial(t), "overlayfs"))
}
