// Command reader reads a blob through containerd's own ReaderAt, as `ctr content get`,
// exports and conversions do: a call for every piece, which ReaderAt gives up when
// it has the bytes it wants. Prints the digest of what it read.
//
// Built from Debian's packages (test/conformance/go-programs.ts), run by ../go-reader.test.ts.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/namespaces"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	address := flag.String("address", "", "unix socket of the server")
	blob := flag.String("digest", "", "blob to read")
	size := flag.Int64("size", 0, "its bytes")
	piece := flag.Int("piece", 4096, "bytes of a call")
	rounds := flag.Int("rounds", 1, "how often, over one connection")
	flag.Parse()
	for i := 0; i < *rounds; i++ {
		if i == 0 {
			connect(*address)
		}
		read, err := readAll(digest.Digest(*blob), *size, *piece)
		if err != nil {
			fmt.Fprintf(os.Stderr, "round %d: %v\n", i+1, err)
			os.Exit(1)
		}
		fmt.Println(read)
	}
}

var client *containerd.Client

func connect(address string) {
	var err error
	if client, err = containerd.New(address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func readAll(blob digest.Digest, size int64, piece int) (digest.Digest, error) {
	ctx := namespaces.WithNamespace(context.Background(), "test")
	reader, err := client.ContentStore().ReaderAt(ctx, ocispec.Descriptor{Digest: blob, Size: size})
	if err != nil {
		return "", err
	}
	defer reader.Close()
	digester := digest.Canonical.Digester()
	buffer := make([]byte, piece)
	for at := int64(0); at < size; {
		n, err := reader.ReadAt(buffer, at)
		if n == 0 && err != nil {
			return "", fmt.Errorf("at %d of %d: %w", at, size, err)
		}
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("at %d of %d: %w", at, size, err)
		}
		digester.Hash().Write(buffer[:n])
		at += int64(n)
	}
	return digester.Digest(), nil
}
