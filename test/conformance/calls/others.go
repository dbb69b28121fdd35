package main

import (
	"context"
	"sort"
	"strings"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/gogo/protobuf/types"
	digest "github.com/opencontainers/go-digest"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"
)

func (p *prober) probeLeases() {
	ctx := in("probe")
	create := func(id string, labels map[string]string) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.leases.Create(ctx, &leasesapi.CreateRequest{ID: id, Labels: labels})
		}
	}
	p.call("lease create", ctx, create("one", map[string]string{"colour": "red", "empty": ""}))
	p.call("lease create again", ctx, create("one", nil))
	p.call("lease create: no id", ctx, create("", nil))
	p.call("lease create two", ctx, create("two", nil))
	for _, filters := range [][]string{nil, {"id==one"}, {"labels.colour==red"}, {"nonsense"}, {"id="}} {
		p.call("lease list "+strings.Join(filters, " or "), ctx, func(ctx context.Context) (interface{}, error) {
			return p.leases.List(ctx, &leasesapi.ListRequest{Filters: filters})
		})
	}
	held := p.store(leased("probe", "one"), "held by a lease", nil)
	p.call("leased snapshot", leased("probe", "one"), func(ctx context.Context) (interface{}, error) {
		_, err := p.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "leased"})
		return nil, err
	})
	resource := func(id, kind string) leasesapi.Resource { return leasesapi.Resource{ID: id, Type: kind} }
	add := func(lease string, r leasesapi.Resource) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.leases.AddResource(ctx, &leasesapi.AddResourceRequest{ID: lease, Resource: r})
		}
	}
	p.call("resource add content", ctx, add("two", resource(held.String(), "content")))
	p.call("resource add content again", ctx, add("two", resource(held.String(), "content")))
	p.call("resource add snapshot", ctx, add("two", resource("leased", "snapshots/overlayfs")))
	p.call("resource add ingest", ctx, add("two", resource("some-ref", "ingests")))
	p.call("resource add what is not there", ctx, add("two", resource(digest.FromString("nothing").String(), "content")))
	p.call("resource add: unknown type", ctx, add("two", resource("x", "nonsense")))
	p.call("resource add: snapshots without a name", ctx, add("two", resource("x", "snapshots")))
	p.call("resource add: bad digest", ctx, add("two", resource("x", "content")))
	p.call("resource add: missing lease", ctx, add("missing", resource(held.String(), "content")))
	list := func(id string) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			response, err := p.leases.ListResources(ctx, &leasesapi.ListResourcesRequest{ID: id})
			if err == nil {
				sort.Slice(response.Resources, func(i, j int) bool {
					return response.Resources[i].Type+response.Resources[i].ID < response.Resources[j].Type+response.Resources[j].ID
				})
			}
			return response, err
		}
	}
	p.call("resources of one", ctx, list("one"))
	p.call("resources of two", ctx, list("two"))
	p.call("resources of a missing lease", ctx, list("missing"))
	remove := func(lease string, r leasesapi.Resource) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.leases.DeleteResource(ctx, &leasesapi.DeleteResourceRequest{ID: lease, Resource: r})
		}
	}
	p.call("resource delete", ctx, remove("two", resource(held.String(), "content")))
	p.call("resource delete again", ctx, remove("two", resource(held.String(), "content")))
	p.call("resource delete: missing lease", ctx, remove("missing", resource("x", "ingests")))
	del := func(id string, sync bool) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: id, Sync: sync})
		}
	}
	info := func(ctx context.Context) (interface{}, error) {
		return p.content.Info(ctx, &contentapi.InfoRequest{Digest: held})
	}
	p.call("lease delete, sync", ctx, del("two", true))
	p.call("the leased blob is still there", ctx, info)
	p.call("lease of the context is missing", leased("probe", "missing"), func(ctx context.Context) (interface{}, error) {
		_, err := p.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "unleased"})
		return nil, err
	})
	p.call("lease delete one, sync", ctx, del("one", true))
	p.call("the blob is gone", ctx, info)
	p.call("the snapshot is gone", ctx, func(ctx context.Context) (interface{}, error) {
		return p.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: "leased"})
	})
	p.call("lease delete: missing", ctx, del("missing", false))
}

func (p *prober) probeSnapshots() {
	ctx := in("probe")
	root := map[string]string{"containerd.io/gc.root": "1"}
	for _, sn := range []string{"overlayfs", "native"} {
		said := func(name string, f func(context.Context) (interface{}, error)) { p.call(sn+": "+name, ctx, f) }
		// Mounts hold private paths: their number and types are compared by ctr's session.
		prepare := func(key, parent string, labels map[string]string) func(context.Context) (interface{}, error) {
			return func(ctx context.Context) (interface{}, error) {
				a, err := p.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: sn, Key: key, Parent: parent, Labels: labels})
				if err != nil {
					return nil, err
				}
				return len(a.Mounts), nil
			}
		}
		view := func(key, parent string) func(context.Context) (interface{}, error) {
			return func(ctx context.Context) (interface{}, error) {
				a, err := p.snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: sn, Key: key, Parent: parent, Labels: root})
				if err != nil {
					return nil, err
				}
				return len(a.Mounts), nil
			}
		}
		commit := func(name, key string, labels map[string]string) func(context.Context) (interface{}, error) {
			return func(ctx context.Context) (interface{}, error) {
				return p.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: sn, Name: name, Key: key, Labels: labels})
			}
		}
		status := func(key string) func(context.Context) (interface{}, error) {
			return func(ctx context.Context) (interface{}, error) {
				return p.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: sn, Key: key})
			}
		}
		update := func(info snapshotsapi.Info, paths ...string) func(context.Context) (interface{}, error) {
			return func(ctx context.Context) (interface{}, error) {
				return p.snapshots.Update(ctx, &snapshotsapi.UpdateSnapshotRequest{Snapshotter: sn, Info: info, UpdateMask: mask(paths...)})
			}
		}
		remove := func(key string) func(context.Context) (interface{}, error) {
			return func(ctx context.Context) (interface{}, error) {
				return p.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: sn, Key: key})
			}
		}
		said("prepare", prepare("a", "", map[string]string{"containerd.io/gc.root": "1", "empty": "", "colour": "red"}))
		said("prepare again", prepare("a", "", root))
		said("prepare: no key", prepare("", "", root))
		said("prepare on an active parent", prepare("b", "a", root))
		said("commit", commit("base", "a", map[string]string{"containerd.io/gc.root": "1", "new": "1"}))
		said("commit: no such key", commit("base2", "a", root))
		said("prepare on base", prepare("b", "base", root))
		said("commit: name is taken", commit("base", "b", root))
		said("commit: name is its key", commit("b", "b", root))
		said("view", view("v", "base"))
		said("view without a parent", view("v0", ""))
		said("commit a view", commit("vc", "v", root))
		for _, key := range []string{"base", "b", "v", "a", ""} {
			said("stat "+key, status(key))
		}
		said("mounts of a committed one", func(ctx context.Context) (interface{}, error) {
			a, err := p.snapshots.Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: sn, Key: "base"})
			if err != nil {
				return nil, err
			}
			return len(a.Mounts), nil
		})
		said("mounts of a missing one", func(ctx context.Context) (interface{}, error) {
			return p.snapshots.Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: sn, Key: "missing"})
		})
		said("usage of base", func(ctx context.Context) (interface{}, error) {
			return p.snapshots.Usage(ctx, &snapshotsapi.UsageRequest{Snapshotter: sn, Key: "base"})
		})
		said("usage of a missing one", func(ctx context.Context) (interface{}, error) {
			return p.snapshots.Usage(ctx, &snapshotsapi.UsageRequest{Snapshotter: sn, Key: "missing"})
		})
		labels := map[string]string{"containerd.io/gc.root": "2", "colour": "blue"}
		said("update labels.colour", update(snapshotsapi.Info{Name: "base", Labels: labels}, "labels.colour"))
		said("update labels", update(snapshotsapi.Info{Name: "base", Labels: labels}, "labels"))
		said("update: no mask", update(snapshotsapi.Info{Name: "base", Labels: root}))
		said("update: parent", update(snapshotsapi.Info{Name: "base", Parent: "x"}, "parent"))
		said("update: missing", update(snapshotsapi.Info{Name: "missing"}, "labels"))
		for _, filters := range [][]string{nil, {"name==base"}, {"parent==base"}, {"kind==active"}, {"kind==Active"},
			{"labels.\"containerd.io/gc.root\"==1"}, {"nonsense"}} {
			said("list "+strings.Join(filters, " or "), func(ctx context.Context) (interface{}, error) {
				return p.listSnapshots(ctx, sn, filters)
			})
		}
		for _, key := range []string{"base", "v", "v0", "b", "base", "base", ""} {
			said("remove "+key, remove(key))
		}
		said("cleanup", func(ctx context.Context) (interface{}, error) {
			return p.snapshots.Cleanup(ctx, &snapshotsapi.CleanupRequest{Snapshotter: sn})
		})
	}
	p.call("unknown snapshotter: stat", ctx, func(ctx context.Context) (interface{}, error) {
		return p.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "nonsense", Key: "x"})
	})
	p.call("no snapshotter: prepare", ctx, func(ctx context.Context) (interface{}, error) {
		return p.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Key: "x"})
	})
}

func (p *prober) listSnapshots(ctx context.Context, sn string, filters []string) (interface{}, error) {
	stream, err := p.snapshots.List(ctx, &snapshotsapi.ListSnapshotsRequest{Snapshotter: sn, Filters: filters})
	if err != nil {
		return nil, err
	}
	var all []snapshotsapi.Info
	if _, err := drain(func() (interface{}, error) {
		response, err := stream.Recv()
		if err == nil {
			all = append(all, response.Info...)
		}
		return nil, err
	}); err != nil {
		return nil, err
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

func (p *prober) probeOthers() {
	ctx := in("probe")
	p.call("version", context.Background(), func(ctx context.Context) (interface{}, error) {
		v, err := versionapi.NewVersionClient(p.conn).Version(ctx, &types.Empty{})
		return err == nil && v.Version != "", err
	})
	p.call("introspection server has a uuid", context.Background(), func(ctx context.Context) (interface{}, error) {
		s, err := introspectionapi.NewIntrospectionClient(p.conn).Server(ctx, &types.Empty{})
		return err == nil && len(s.UUID) == 36, err
	})
	for _, filters := range [][]string{{"type==io.containerd.snapshotter.v1,id==overlayfs"}, {"id==nothing"}, {"id="}} {
		p.call("plugins "+filters[0], context.Background(), func(ctx context.Context) (interface{}, error) {
			a, err := introspectionapi.NewIntrospectionClient(p.conn).Plugins(ctx, &introspectionapi.PluginsRequest{Filters: filters})
			if err != nil {
				return nil, err
			}
			names := []string{}
			for _, plugin := range a.Plugins {
				names = append(names, plugin.Type+" "+plugin.ID)
			}
			return names, nil
		})
	}
	p.call("health", context.Background(), func(ctx context.Context) (interface{}, error) {
		return healthapi.NewHealthClient(p.conn).Check(ctx, &healthapi.HealthCheckRequest{})
	})
	p.call("health of a service that is not there", context.Background(), func(ctx context.Context) (interface{}, error) {
		return healthapi.NewHealthClient(p.conn).Check(ctx, &healthapi.HealthCheckRequest{Service: "nonsense"})
	})
	tasks := tasksapi.NewTasksClient(p.conn)
	p.call("task get", ctx, func(ctx context.Context) (interface{}, error) {
		return tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: "none"})
	})
	p.call("task list", ctx, func(ctx context.Context) (interface{}, error) {
		return tasks.List(ctx, &tasksapi.ListTasksRequest{})
	})
	events := eventsapi.NewEventsClient(p.conn)
	publish := func(topic string, event *types.Any) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return events.Publish(ctx, &eventsapi.PublishRequest{Topic: topic, Event: event})
		}
	}
	p.call("publish", ctx, publish("/probe/topic", spec("event")))
	p.call("publish: bad topic", ctx, publish("probe", spec("event")))
	p.call("publish: no topic", ctx, publish("", spec("event")))
	p.call("publish: no namespace", context.Background(), publish("/probe/topic", spec("event")))
	p.call("subscribe: bad filter", ctx, func(ctx context.Context) (interface{}, error) {
		stream, err := events.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{"topic="}})
		if err != nil {
			return nil, err
		}
		_, err = stream.Recv()
		return nil, err
	})
	diff := diffapi.NewDiffClient(p.conn)
	p.call("diff apply: missing blob", ctx, func(ctx context.Context) (interface{}, error) {
		return diff.Apply(ctx, &diffapi.ApplyRequest{Diff: &apitypes.Descriptor{
			MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest.FromString("none"), Size_: 4}})
	})
	p.call("diff apply: unknown media type", ctx, func(ctx context.Context) (interface{}, error) {
		d := p.store(ctx, "no layer", nil)
		return diff.Apply(ctx, &diffapi.ApplyRequest{Diff: &apitypes.Descriptor{MediaType: "text/nonsense", Digest: d, Size_: 8}})
	})
	p.call("diff: unknown media type", ctx, func(ctx context.Context) (interface{}, error) {
		return diff.Diff(ctx, &diffapi.DiffRequest{MediaType: "text/nonsense"})
	})
	big := contentapi.WriteContentRequest{Action: data, Ref: "big", Data: make([]byte, 12<<20)}
	responses, err := p.session(ctx, &big)
	p.said("a message of 12 MiB", responses, err)
}
