package main

import (
	"context"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/gogo/protobuf/types"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc/metadata"
)

func (p *prober) probeMetadata() {
	get := func(ctx context.Context) (interface{}, error) {
		return p.images.Get(ctx, &imagesapi.GetImageRequest{Name: "x"})
	}
	p.call("no namespace header", context.Background(), get)
	p.call("empty namespace header", in(""), get)
	p.call("bad namespace header", in("not a name"), get)
	p.call("a namespace that is not there", in("nowhere"), get)
	twice := metadata.AppendToOutgoingContext(context.Background(),
		"containerd-namespace", "first", "containerd-namespace", "second")
	p.call("two namespace headers", twice, func(ctx context.Context) (interface{}, error) {
		return p.images.Create(ctx, &imagesapi.CreateImageRequest{Image: image("in-which", nil)})
	})
	for _, namespace := range []string{"first", "second"} {
		p.call("two namespace headers: in "+namespace, in(namespace), func(ctx context.Context) (interface{}, error) {
			return p.images.Get(ctx, &imagesapi.GetImageRequest{Name: "in-which"})
		})
	}
	for _, method := range []string{"/containerd.services.images.v1.Images/Nonsense", "/no.such.Service/Call",
		"/containerd.services.transfer.v1.Transfer/Transfer", "/containerd.services.sandbox.v1.Store/Get"} {
		p.call("unknown method "+method, in("probe"), func(ctx context.Context) (interface{}, error) {
			return nil, p.conn.Invoke(ctx, method, &types.Empty{}, &types.Empty{})
		})
	}
}

func (p *prober) probeNamespaces() {
	ns := p.namespaces
	create := func(name string, labels map[string]string) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return ns.Create(ctx, &namespacesapi.CreateNamespaceRequest{
				Namespace: namespacesapi.Namespace{Name: name, Labels: labels},
			})
		}
	}
	update := func(paths []string, labels map[string]string) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return ns.Update(ctx, &namespacesapi.UpdateNamespaceRequest{
				Namespace: namespacesapi.Namespace{Name: "probe-ns", Labels: labels}, UpdateMask: mask(paths...),
			})
		}
	}
	bg := in("probe") // containerd publishes its events in the caller's namespace.
	p.call("namespace create", bg, create("probe-ns", map[string]string{"a": "1", "b": "2", "empty": ""}))
	p.call("namespace create again", bg, create("probe-ns", nil))
	p.call("namespace create: no name", bg, create("", nil))
	p.call("namespace create: too long", bg, create(strings.Repeat("n", 77), nil))
	p.call("namespace create: label too long", bg, create("long", map[string]string{"k": strings.Repeat("v", 4097)}))
	p.call("namespace update labels.a", bg, update([]string{"labels.a"}, map[string]string{"a": "9", "b": "not this"}))
	p.call("namespace update removes by empty", bg, update([]string{"labels.b"}, map[string]string{"b": ""}))
	p.call("namespace update: no mask adds", bg, update(nil, map[string]string{"c": "3"}))
	p.call("namespace update: mask labels", bg, update([]string{"labels"}, map[string]string{"d": "4"}))
	p.call("namespace update: unknown path", bg, update([]string{"name"}, nil))
	p.call("namespace get", bg, func(ctx context.Context) (interface{}, error) {
		return ns.Get(ctx, &namespacesapi.GetNamespaceRequest{Name: "probe-ns"})
	})
	p.call("namespace get: missing", bg, func(ctx context.Context) (interface{}, error) {
		return ns.Get(ctx, &namespacesapi.GetNamespaceRequest{Name: "missing"})
	})
	for _, filter := range []string{"name==probe-ns", "labels.d==4", "name==", "labels.d"} {
		p.call("namespace list "+filter, bg, func(ctx context.Context) (interface{}, error) {
			return ns.List(ctx, &namespacesapi.ListNamespacesRequest{Filter: filter})
		})
	}
	for _, name := range []string{"first", "probe-ns", "missing"} {
		p.call("namespace delete "+name, bg, func(ctx context.Context) (interface{}, error) {
			return ns.Delete(ctx, &namespacesapi.DeleteNamespaceRequest{Name: name})
		})
	}
}

func image(name string, labels map[string]string) imagesapi.Image {
	return imagesapi.Image{Name: name, Labels: labels, Target: apitypes.Descriptor{
		MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromString(name), Size_: 12,
		Annotations: map[string]string{"note": "kept"},
	}}
}

func (p *prober) probeImages() {
	ctx := in("probe")
	create := func(im imagesapi.Image) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.images.Create(ctx, &imagesapi.CreateImageRequest{Image: im})
		}
	}
	p.call("image create", ctx, create(image("one", map[string]string{"colour": "red", "size": "big", "empty": ""})))
	p.call("image create again", ctx, create(image("one", nil)))
	p.call("image create two", ctx, create(image("two", map[string]string{"colour": "blue"})))
	p.call("image create: no name", ctx, create(image("", nil)))
	bad := image("bad", nil)
	bad.Target.Digest = "sha256:short"
	p.call("image create: bad digest", ctx, create(bad))
	bad = image("bad", nil)
	bad.Target.Size_ = 0
	p.call("image create: no size", ctx, create(bad))
	bad = image("bad", nil)
	bad.Target.MediaType = ""
	p.call("image create: no media type", ctx, create(bad))
	bad = image("bad", map[string]string{strings.Repeat("k", 2048): strings.Repeat("v", 2049)})
	p.call("image create: label too long", ctx, create(bad))

	update := func(im imagesapi.Image, paths ...string) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.images.Update(ctx, &imagesapi.UpdateImageRequest{Image: im, UpdateMask: mask(paths...)})
		}
	}
	changed := image("one", map[string]string{"colour": "green", "size": "", "new": "yes"})
	changed.Target.Digest = digest.FromString("other")
	p.call("image update labels.colour", ctx, update(changed, "labels.colour"))
	p.call("image update labels.size to nothing", ctx, update(changed, "labels.size"))
	p.call("image update labels", ctx, update(changed, "labels"))
	p.call("image update target", ctx, update(changed, "target"))
	changed.Target.Annotations = map[string]string{"note": "changed", "more": "1"}
	p.call("image update annotations.note", ctx, update(changed, "annotations.note"))
	p.call("image update: all", ctx, update(image("one", map[string]string{"only": "this"})))
	p.call("image update: unknown path", ctx, update(changed, "name"))
	p.call("image update: missing", ctx, update(image("missing", nil), "labels"))
	p.call("image get", ctx, func(ctx context.Context) (interface{}, error) {
		return p.images.Get(ctx, &imagesapi.GetImageRequest{Name: "one"})
	})
	for _, filters := range [][]string{nil, {"name==one"}, {"name!=one"}, {"name~=/^t/"}, {"labels.only"},
		{"name==one", "name==two"}, {"name==one,labels.only==this"}, {"labels.\"only\"==this"},
		{"target.digest~=/^sha256/"}, {"target.mediatype~=/json$/"}, {"annotations.note==kept"}, {"nonsense==1"},
		{"name=one"}, {"name~=/[/"}, {","}, {""}} {
		p.call("image list "+strings.Join(filters, " or "), ctx, func(ctx context.Context) (interface{}, error) {
			return p.images.List(ctx, &imagesapi.ListImagesRequest{Filters: filters})
		})
	}
	for _, name := range []string{"two", "two", "", "one"} {
		p.call("image delete "+name, ctx, func(ctx context.Context) (interface{}, error) {
			return p.images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: name})
		})
	}
}

func spec(text string) *types.Any { return &types.Any{TypeUrl: "probe/spec.v1", Value: []byte(text)} }

func container(id string) containersapi.Container {
	return containersapi.Container{
		ID: id, Image: "some-image", Labels: map[string]string{"colour": "red"},
		Runtime:     &containersapi.Container_Runtime{Name: "io.containerd.runc.v2", Options: spec("options")},
		Spec:        spec("\x00\x01\xff"),
		Snapshotter: "overlayfs", SnapshotKey: "key-" + id,
		Extensions: map[string]types.Any{"ext": *spec("extension")},
	}
}

func (p *prober) probeContainers() {
	ctx := in("probe")
	create := func(c containersapi.Container) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c})
		}
	}
	p.call("container create", ctx, create(container("one")))
	p.call("container create again", ctx, create(container("one")))
	p.call("container create two", ctx, create(container("two")))
	p.call("container create: no id", ctx, create(container("")))
	p.call("container create: bad id", ctx, create(container("a/b")))
	bad := container("bad")
	bad.Runtime = nil
	p.call("container create: no runtime", ctx, create(bad))
	bad = container("bad")
	bad.Spec = nil
	p.call("container create: no spec", ctx, create(bad))
	// Not everybody refused it.
	_, _ = within(ctx, func(ctx context.Context) (interface{}, error) {
		return p.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "bad"})
	})
	bad = container("bad")
	bad.Snapshotter = ""
	p.call("container create: key without snapshotter", ctx, create(bad))
	bad = container("bad")
	bad.Extensions = map[string]types.Any{"": *spec("x")}
	p.call("container create: extension without name", ctx, create(bad))

	update := func(c containersapi.Container, paths ...string) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.containers.Update(ctx, &containersapi.UpdateContainerRequest{Container: c, UpdateMask: mask(paths...)})
		}
	}
	changed := container("one")
	changed.Labels = map[string]string{"colour": "blue", "more": "1"}
	changed.Image = "other-image"
	changed.Spec = spec("changed")
	changed.Extensions = map[string]types.Any{"ext": *spec("other"), "second": *spec("2")}
	changed.SnapshotKey = "other-key"
	for _, path := range []string{"labels.colour", "labels", "spec", "image", "extensions", "extensions.second",
		"runtime", "snapshotter", "snapshotkey", "id"} {
		p.call("container update "+path, ctx, update(changed, path))
	}
	p.call("container update: all, another runtime", ctx, func(ctx context.Context) (interface{}, error) {
		c := container("one")
		c.Runtime.Name = "other"
		return update(c)(ctx)
	})
	p.call("container update: all, another snapshot", ctx, update(changed))
	p.call("container update: missing", ctx, update(container("missing"), "labels"))
	p.call("container get", ctx, func(ctx context.Context) (interface{}, error) {
		return p.containers.Get(ctx, &containersapi.GetContainerRequest{ID: "one"})
	})
	for _, filters := range [][]string{nil, {"id==one"}, {"labels.colour==red"}, {"runtime.name==io.containerd.runc.v2"},
		{"image==some-image"}, {"snapshotter==overlayfs"}, {"nonsense"}, {"id=="}} {
		p.call("container list "+strings.Join(filters, " or "), ctx, func(ctx context.Context) (interface{}, error) {
			return p.containers.List(ctx, &containersapi.ListContainersRequest{Filters: filters})
		})
	}
	p.call("container list as a stream", ctx, func(ctx context.Context) (interface{}, error) {
		stream, err := p.containers.ListStream(ctx, &containersapi.ListContainersRequest{})
		if err != nil {
			return nil, err
		}
		return drain(func() (interface{}, error) { return stream.Recv() })
	})
	for _, id := range []string{"two", "two", "one"} {
		p.call("container delete "+id, ctx, func(ctx context.Context) (interface{}, error) {
			return p.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: id})
		})
	}
}
