package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/content"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What containerd's own copy uses.
const chunkBytes = 1 << 20

type transfer struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
	Digest  string  `json:"digest"`
}

// write sends bytes that no other run has sent, so nothing is there before. The
// client does not hash, so that the server is measured.
func write(c *config) (interface{}, error) {
	client, ctx, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	chunk := make([]byte, chunkBytes)
	rand.New(rand.NewSource(time.Now().UnixNano())).Read(chunk)

	start := time.Now()
	w, err := client.ContentStore().Writer(ctx, content.WithRef(fmt.Sprintf("write-%d", start.UnixNano())))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for sent := int64(0); sent < c.bytes; {
		binary.LittleEndian.PutUint64(chunk, uint64(sent))
		n := int64(len(chunk))
		if c.bytes-sent < n {
			n = c.bytes - sent
		}
		if _, err := w.Write(chunk[:n]); err != nil {
			return nil, err
		}
		sent += n
	}
	root := content.WithLabels(map[string]string{"containerd.io/gc.root": "bench"})
	if err := w.Commit(ctx, c.bytes, "", root); err != nil {
		return nil, err
	}
	return transfer{time.Since(start).Seconds(), c.bytes, w.Digest().String()}, nil
}

func read(c *config) (interface{}, error) {
	client, ctx, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	dgst := digest.Digest(c.digest)
	var n int64
	start := time.Now()
	if c.stream {
		n, err = readStream(ctx, contentapi.NewContentClient(client.Conn()), dgst)
	} else {
		n, err = readAt(ctx, client.ContentStore(), ocispec.Descriptor{Digest: dgst, Size: c.bytes})
	}
	took := time.Since(start)
	if err != nil {
		return nil, err
	}
	if n != c.bytes {
		return nil, fmt.Errorf("%d bytes of %d", n, c.bytes)
	}
	return transfer{took.Seconds(), n, c.digest}, nil
}

// readAt reads as Go clients do: a call for each buffer.
func readAt(ctx context.Context, store content.Provider, desc ocispec.Descriptor) (int64, error) {
	ra, err := store.ReaderAt(ctx, desc)
	if err != nil {
		return 0, err
	}
	defer ra.Close()
	return io.CopyBuffer(onlyWriter{io.Discard}, content.NewReader(ra), make([]byte, chunkBytes))
}

// onlyWriter hides io.Discard's ReadFrom, which has a small buffer of its own.
type onlyWriter struct{ io.Writer }

func readStream(ctx context.Context, client contentapi.ContentClient, dgst digest.Digest) (n int64, err error) {
	stream, err := client.Read(ctx, &contentapi.ReadContentRequest{Digest: dgst})
	if err != nil {
		return 0, err
	}
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += int64(len(response.Data))
	}
}
