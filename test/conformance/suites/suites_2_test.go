//go:build containerd2

package suites

import (
	"testing"

	contentsuite "github.com/containerd/containerd/content/testsuite"
)

func wrapper(in inNamespace) contentsuite.ContextWrapper { return in }

func TestContentSharedNamespaceIsolated(t *testing.T) {
	contentsuite.ContentSharedNSIsolatedSuite(t, "shared-namespace", contentStore(dial(t)))
}
