package main

import (
	"context"
	"sort"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	digest "github.com/opencontainers/go-digest"
)

const (
	gcNamespace = "collected"
	refContent  = "containerd.io/gc.ref.content"
	gcRoot      = "containerd.io/gc.root"
	gcExpire    = "containerd.io/gc.expire"
)

type labels = map[string]string

// blobNamed stores a blob whose content is its name.
func (p *prober) blobNamed(namespace, name string, l labels) string {
	return p.store(in(namespace), name, l).String()
}

func (p *prober) must(name string, f func(context.Context) (interface{}, error)) {
	if _, err := within(in(gcNamespace), f); err != nil {
		p.said(name, nil, err)
	}
}

func (p *prober) leaseNamed(id string, l labels, resources ...leasesapi.Resource) {
	p.must("lease "+id, func(ctx context.Context) (interface{}, error) {
		if _, err := p.leases.Create(ctx, &leasesapi.CreateRequest{ID: id, Labels: l}); err != nil {
			return nil, err
		}
		for _, r := range resources {
			if _, err := p.leases.AddResource(ctx, &leasesapi.AddResourceRequest{ID: id, Resource: r}); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
}

func content(d string) leasesapi.Resource { return leasesapi.Resource{ID: d, Type: "content"} }

// committed makes a committed snapshot.
func (p *prober) committed(name, parent string, l labels) {
	p.must("snapshot "+name, func(ctx context.Context) (interface{}, error) {
		if _, err := p.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: "draft of " + name, Parent: parent}); err != nil {
			return nil, err
		}
		return p.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{
			Snapshotter: "overlayfs", Name: name, Key: "draft of " + name, Labels: l})
	})
}

func (p *prober) active(key, parent string) {
	p.must("snapshot "+key, func(ctx context.Context) (interface{}, error) {
		return p.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: key, Parent: parent})
	})
}

// probeCollections builds every kind of root and reference, collects, and says
// what is left; then takes roots away, one after the other.
func (p *prober) probeCollections() {
	p.collectedBlobs()
	p.collectedLeases()
	p.collectedSnapshots()
	p.collected("collection: first")
	p.must("image delete", func(ctx context.Context) (interface{}, error) {
		return p.images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: "image"})
	})
	p.collected("collection: image deleted")
	p.must("container delete", func(ctx context.Context) (interface{}, error) {
		return p.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "holder"})
	})
	p.collected("collection: container deleted")
	for _, id := range []string{"plain", "flat", "future", "unreadable", "snapshots"} {
		p.must("lease delete "+id, func(ctx context.Context) (interface{}, error) {
			return p.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: id})
		})
	}
	p.collected("collection: leases deleted")
	p.must("root label removed", func(ctx context.Context) (interface{}, error) {
		return p.content.Update(ctx, &contentapi.UpdateRequest{UpdateMask: mask("labels." + gcRoot), Info: contentapi.Info{
			Digest: digest.FromString("root"), Labels: labels{gcRoot: ""}}})
	})
	p.collected("collection: root label removed")
}

func (p *prober) collectedBlobs() {
	grandchild := p.blobNamed(gcNamespace, "grandchild", nil)
	child := p.blobNamed(gcNamespace, "child", labels{refContent + ".0": grandchild})
	plain := p.blobNamed(gcNamespace, "child by a bare label", nil)
	slash := p.blobNamed(gcNamespace, "child by a label with a slash", nil)
	wrong := p.blobNamed(gcNamespace, "not a child: another label", nil)
	p.blobNamed(gcNamespace, "root", labels{gcRoot: "any", refContent + ".0": child, refContent: plain,
		refContent + "/x": slash, refContent + "foo": wrong})
	p.blobNamed(gcNamespace, "lonely", nil)
	p.blobNamed(gcNamespace, "not a root: empty label", labels{gcRoot: ""})
	// A circle that nothing refers to.
	p.blobNamed(gcNamespace, "circle a", labels{refContent + ".b": digest.FromString("circle b").String()})
	p.blobNamed(gcNamespace, "circle b", labels{refContent + ".a": digest.FromString("circle a").String()})
	// References do not cross namespaces, blobs of the same digest live on where they are referred to.
	p.blobNamed("another", "lonely", labels{gcRoot: "1"})
	p.blobNamed("another", "refers over", labels{gcRoot: "1", refContent + ".0": digest.FromString("only here").String()})
	p.blobNamed(gcNamespace, "only here", nil)

	layer := p.blobNamed(gcNamespace, "layer", nil)
	extra := p.blobNamed(gcNamespace, "extra by the image's label", nil)
	manifest := p.blobNamed(gcNamespace, "manifest", labels{refContent + ".l.0": layer,
		"containerd.io/gc.ref.snapshot.overlayfs": "by a blob"})
	im := image("image", labels{refContent + ".x": extra})
	im.Target.Digest = digest.Digest(manifest)
	p.must("image", func(ctx context.Context) (interface{}, error) {
		return p.images.Create(ctx, &imagesapi.CreateImageRequest{Image: im})
	})
}

func (p *prober) collectedLeases() {
	leasedChild := p.blobNamed(gcNamespace, "child of a leased blob", nil)
	leased := p.blobNamed(gcNamespace, "leased", labels{refContent + ".0": leasedChild})
	p.leaseNamed("plain", nil, content(leased))
	flatChild := p.blobNamed(gcNamespace, "child of a flatly leased blob", nil)
	flat := p.blobNamed(gcNamespace, "flatly leased", labels{refContent + ".0": flatChild})
	p.leaseNamed("flat", labels{"containerd.io/gc.flat": "false"}, content(flat))
	p.leaseNamed("past", labels{gcExpire: "2001-02-03T04:05:06Z"}, content(p.blobNamed(gcNamespace, "leased in the past", nil)))
	p.leaseNamed("future", labels{gcExpire: "2101-02-03T04:05:06Z"}, content(p.blobNamed(gcNamespace, "leased for long", nil)))
	p.leaseNamed("unreadable", labels{gcExpire: "tomorrow"}, content(p.blobNamed(gcNamespace, "leased unreadably", nil)))
}

func (p *prober) collectedSnapshots() {
	p.committed("base", "", nil)
	p.committed("middle", "base", nil)
	p.active("held by a container", "middle")
	p.active("held by nobody", "middle")
	p.committed("by a blob", "base", nil)
	p.committed("unused", "", nil)
	p.committed("root by label", "", labels{gcRoot: "1"})
	p.committed("by a snapshot's label", "", nil)
	p.committed("leased", "", labels{"containerd.io/gc.ref.snapshot.overlayfs/x": "by a snapshot's label"})
	p.leaseNamed("snapshots", nil, leasesapi.Resource{ID: "leased", Type: "snapshots/overlayfs"})
	c := container("holder")
	c.SnapshotKey = "held by a container"
	p.must("container", func(ctx context.Context) (interface{}, error) {
		return p.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c})
	})
}

// collected collects and says what is left: blobs by their text.
func (p *prober) collected(name string) {
	p.leaseNamed("asking", nil)
	p.call(name+": ask", in(gcNamespace), func(ctx context.Context) (interface{}, error) {
		return p.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "asking", Sync: true})
	})
	p.call(name+": left", in(gcNamespace), func(ctx context.Context) (interface{}, error) {
		left := map[string][]string{}
		stream, err := p.content.List(ctx, &contentapi.ListContentRequest{})
		if err != nil {
			return nil, err
		}
		lists, err := drain(func() (interface{}, error) { return stream.Recv() })
		if err != nil {
			return nil, err
		}
		for _, list := range lists {
			for _, info := range list.(*contentapi.ListContentResponse).Info {
				text, err := p.text(ctx, info.Digest)
				if err != nil {
					return nil, err
				}
				left["blobs"] = append(left["blobs"], text)
			}
		}
		all, err := p.listSnapshots(ctx, "overlayfs", nil)
		if err != nil {
			return nil, err
		}
		for _, info := range all.([]snapshotsapi.Info) {
			left["snapshots"] = append(left["snapshots"], info.Name)
		}
		held, err := p.leases.List(ctx, &leasesapi.ListRequest{})
		if err != nil {
			return nil, err
		}
		for _, l := range held.Leases {
			left["leases"] = append(left["leases"], l.ID)
		}
		for _, names := range left {
			sort.Strings(names)
		}
		return left, nil
	})
}

func (p *prober) text(ctx context.Context, d digest.Digest) (text string, err error) {
	stream, err := p.content.Read(ctx, &contentapi.ReadContentRequest{Digest: d})
	if err != nil {
		return "", err
	}
	parts, err := drain(func() (interface{}, error) { return stream.Recv() })
	for _, part := range parts {
		text += string(part.(*contentapi.ReadContentResponse).Data)
	}
	return text, err
}
