// Command calls makes a fixed series of raw calls to a server of containerd's
// API and prints what came of each, one JSON object a line. The same series runs
// against containerd and against us; ../calls.ts compares the lines.
//
// It looks at what ctr and the suites do not reach: codes of wrong requests,
// field masks, filters, offsets, missing metadata, exact fields of responses.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/gogo/protobuf/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const callLimit = 20 * time.Second

type prober struct {
	conn *grpc.ClientConn
	out  *bufio.Writer

	namespaces namespacesapi.NamespacesClient
	images     imagesapi.ImagesClient
	containers containersapi.ContainersClient
	content    contentapi.ContentClient
	leases     leasesapi.LeasesClient
	snapshots  snapshotsapi.SnapshotsClient
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: calls SOCKET")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	conn, err := grpc.DialContext(ctx, "unix://"+os.Args[1], grpc.WithInsecure(), grpc.WithBlock(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)))
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	p := &prober{
		conn: conn, out: bufio.NewWriter(os.Stdout),
		namespaces: namespacesapi.NewNamespacesClient(conn), images: imagesapi.NewImagesClient(conn),
		containers: containersapi.NewContainersClient(conn), content: contentapi.NewContentClient(conn),
		leases: leasesapi.NewLeasesClient(conn), snapshots: snapshotsapi.NewSnapshotsClient(conn),
	}
	defer p.out.Flush()
	p.probeMetadata()
	p.probeNamespaces()
	p.probeImages()
	p.probeContainers()
	p.probeContent()
	p.probeWrites()
	p.probeLeases()
	p.probeSnapshots()
	p.probeOthers()
	p.probeCollections()
}

func in(namespace string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "containerd-namespace", namespace)
}

func leased(namespace, lease string) context.Context {
	return metadata.AppendToOutgoingContext(in(namespace), "containerd-lease", lease)
}

// mask of an update; none at all for no paths.
func mask(paths ...string) *types.FieldMask {
	if len(paths) == 0 {
		return nil
	}
	return &types.FieldMask{Paths: paths}
}

// chance is an id that the server makes up.
var chance = regexp.MustCompile(`"\d{1,9}-[\w-]{4}"`)

// times are either set or not.
var stamp = regexp.MustCompile(`"(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"`)

// said prints one outcome: the code, and of a response every field, of an error
// its words (which are not compared).
func (p *prober) said(name string, response interface{}, err error) {
	line := map[string]interface{}{"call": name, "code": status.Code(err).String()}
	if err != nil {
		line["message"] = status.Convert(err).Message()
	} else {
		line["response"] = response
	}
	b, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	b = stamp.ReplaceAllFunc(b, func(t []byte) []byte {
		if year := string(t[1:5]); year == "0001" || year == "1970" {
			return []byte(`"unset"`)
		}
		return []byte(`"set"`)
	})
	b = chance.ReplaceAll(b, []byte(`"<chance>"`))
	p.out.Write(append(b, '\n'))
}

// within makes a call in a namespace, bounded in time.
func within(ctx context.Context, f func(context.Context) (interface{}, error)) (interface{}, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return f(ctx)
}

func (p *prober) call(name string, ctx context.Context, f func(context.Context) (interface{}, error)) {
	response, err := within(ctx, f)
	p.said(name, response, err)
}
