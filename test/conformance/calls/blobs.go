package main

import (
	"context"
	"io"
	"sort"
	"strings"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	digest "github.com/opencontainers/go-digest"
)

// drain receives until the stream ends.
func drain(receive func() (interface{}, error)) ([]interface{}, error) {
	var all []interface{}
	for {
		response, err := receive()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, response)
	}
}

type request = contentapi.WriteContentRequest

const (
	stat   = contentapi.WriteActionStat
	data   = contentapi.WriteActionWrite
	commit = contentapi.WriteActionCommit
)

// session sends requests on one write stream and takes a response to each; the
// last response is followed until the server ends the stream.
func (p *prober) session(ctx context.Context, requests ...*request) (interface{}, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	stream, err := p.content.Write(ctx)
	if err != nil {
		return nil, err
	}
	var responses []interface{}
	for _, r := range requests {
		if err := stream.Send(r); err != nil && err != io.EOF {
			return responses, err
		}
		response, err := stream.Recv()
		if err == io.EOF {
			return append(responses, "end"), nil
		}
		if err != nil {
			return responses, err
		}
		responses = append(responses, response)
	}
	if err := stream.CloseSend(); err != nil {
		return responses, err
	}
	// containerd responds to a commit twice; clients read one and close.
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return responses, nil
		} else if err != nil {
			return responses, err
		}
	}
}

func (p *prober) write(name string, requests ...*request) {
	responses, err := p.session(in("probe"), requests...)
	p.said(name, responses, err)
}

func (p *prober) store(ctx context.Context, text string, labels map[string]string) digest.Digest {
	if _, err := p.session(ctx, &request{Action: commit, Ref: "store " + text, Data: []byte(text), Labels: labels}); err != nil {
		p.said("store "+text, nil, err)
	}
	return digest.FromString(text)
}

func (p *prober) probeContent() {
	ctx := in("probe")
	hello := p.store(ctx, "hello, world", map[string]string{"kind": "greeting", "empty": "", "containerd.io/gc.root": "1"})
	p.store(ctx, "second", map[string]string{"containerd.io/gc.root": "1"})
	missing := digest.FromString("missing")
	for name, d := range map[string]digest.Digest{"hello": hello} {
		p.call("content info "+name, ctx, func(ctx context.Context) (interface{}, error) {
			return p.content.Info(ctx, &contentapi.InfoRequest{Digest: d})
		})
	}
	for _, d := range []digest.Digest{missing, "sha256:short", "", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		p.call("content info of "+string(d), ctx, func(ctx context.Context) (interface{}, error) {
			return p.content.Info(ctx, &contentapi.InfoRequest{Digest: d})
		})
	}
	p.call("content info in another namespace", in("other"), func(ctx context.Context) (interface{}, error) {
		return p.content.Info(ctx, &contentapi.InfoRequest{Digest: hello})
	})
	update := func(info contentapi.Info, paths ...string) func(context.Context) (interface{}, error) {
		return func(ctx context.Context) (interface{}, error) {
			return p.content.Update(ctx, &contentapi.UpdateRequest{Info: info, UpdateMask: mask(paths...)})
		}
	}
	changed := contentapi.Info{Digest: hello, Labels: map[string]string{"kind": "other", "new": "1"}}
	p.call("content update labels.kind", ctx, update(changed, "labels.kind"))
	changed.Labels["kind"] = ""
	p.call("content update labels.kind to nothing", ctx, update(changed, "labels.kind"))
	p.call("content update labels", ctx, update(contentapi.Info{Digest: hello, Labels: map[string]string{"a": "b"}}, "labels"))
	p.call("content update: no mask", ctx, update(contentapi.Info{Digest: hello, Labels: map[string]string{"c": "d"}}))
	p.call("content update: unknown path", ctx, update(changed, "size"))
	p.call("content update: missing", ctx, update(contentapi.Info{Digest: missing}, "labels"))
	for _, filters := range [][]string{nil, {"labels.c==d"}, {"digest==" + hello.String()}, {"size==12"}, {"nonsense"},
		{"labels.c="}} {
		p.call("content list "+strings.Join(filters, " or "), ctx, func(ctx context.Context) (interface{}, error) {
			stream, err := p.content.List(ctx, &contentapi.ListContentRequest{Filters: filters})
			if err != nil {
				return nil, err
			}
			return drain(func() (interface{}, error) { return stream.Recv() })
		})
	}
	for _, r := range []struct {
		name         string
		offset, size int64
	}{{"all", 0, 0}, {"middle", 3, 4}, {"tail", 7, 0}, {"exact", 0, 12}, {"at the end", 12, 0}, {"behind the end", 13, 0},
		{"too much", 3, 100}, {"negative offset", -1, 0}, {"negative size", 0, -1}} {
		p.call("content read "+r.name, ctx, func(ctx context.Context) (interface{}, error) {
			stream, err := p.content.Read(ctx, &contentapi.ReadContentRequest{Digest: hello, Offset: r.offset, Size_: r.size})
			if err != nil {
				return nil, err
			}
			return drain(func() (interface{}, error) { return stream.Recv() })
		})
	}
	for _, d := range []digest.Digest{missing, "nonsense"} {
		p.call("content read of "+string(d), ctx, func(ctx context.Context) (interface{}, error) {
			stream, err := p.content.Read(ctx, &contentapi.ReadContentRequest{Digest: d})
			if err != nil {
				return nil, err
			}
			return drain(func() (interface{}, error) { return stream.Recv() })
		})
	}
	p.call("content read, cancelled early, then again", ctx, func(ctx context.Context) (interface{}, error) {
		early, cancel := context.WithCancel(ctx)
		if _, err := p.content.Read(early, &contentapi.ReadContentRequest{Digest: hello}); err != nil {
			cancel()
			return nil, err
		}
		cancel()
		stream, err := p.content.Read(ctx, &contentapi.ReadContentRequest{Digest: hello})
		if err != nil {
			return nil, err
		}
		return drain(func() (interface{}, error) { return stream.Recv() })
	})
	for _, d := range []digest.Digest{hello, hello, "nonsense"} {
		p.call("content delete "+string(d), ctx, func(ctx context.Context) (interface{}, error) {
			return p.content.Delete(ctx, &contentapi.DeleteContentRequest{Digest: d})
		})
	}
}

func (p *prober) probeWrites() {
	ctx := in("probe")
	text := []byte("0123456789")
	d := digest.FromBytes(text)
	root := map[string]string{"containerd.io/gc.root": "1"}
	p.write("write: no ref", &request{Action: data, Data: text})
	p.write("write: stat of a new one", &request{Action: stat, Ref: "w1"})
	p.write("write: stat with total and digest", &request{Action: stat, Ref: "w2", Total: 10, Expected: d})
	p.write("write in two parts", &request{Action: data, Ref: "w3", Data: text[:4], Total: 10, Expected: d},
		&request{Action: data, Offset: 4, Data: text[4:]}, &request{Action: stat})
	p.write("write: resume says where", &request{Action: stat, Ref: "w3"})
	p.write("write: offset too high", &request{Action: stat, Ref: "w3"}, &request{Action: data, Offset: 11, Data: text})
	p.write("write: offset lower than what is there", &request{Action: stat, Ref: "w3"},
		&request{Action: data, Offset: 2, Data: text[2:]}, &request{Action: stat})
	p.write("write: back to the start", &request{Action: stat, Ref: "w3"},
		&request{Action: data, Offset: 0, Data: text[:3]}, &request{Action: stat})
	p.write("commit: wrong total", &request{Action: stat, Ref: "w3"}, &request{Action: commit, Offset: 3, Total: 9, Expected: d})
	p.write("commit: wrong digest", &request{Action: stat, Ref: "w3"},
		&request{Action: commit, Offset: 3, Total: 3, Expected: digest.FromString("x")})
	p.write("commit with the last data", &request{Action: stat, Ref: "w3"},
		&request{Action: commit, Offset: 3, Data: text[3:], Total: 10, Expected: d, Labels: root})
	p.write("write: total changes", &request{Action: stat, Ref: "w5", Total: 10}, &request{Action: data, Data: text, Total: 11})
	p.write("write: digest changes", &request{Action: stat, Ref: "w6", Total: 10, Expected: d},
		&request{Action: data, Data: text, Total: 10, Expected: digest.FromString("x")})
	p.write("write: more than the total", &request{Action: data, Ref: "w7", Total: 4, Data: text})
	p.write("write of what exists", &request{Action: stat, Ref: "w8", Total: 10, Expected: d})
	p.write("commit of what exists", &request{Action: data, Ref: "w9", Data: text}, &request{Action: commit, Total: 10, Offset: 10, Expected: d})
	p.write("commit of nothing", &request{Action: commit, Ref: "w10", Labels: root})
	p.write("commit of nothing again", &request{Action: commit, Ref: "w11"})
	p.write("write: bad digest", &request{Action: stat, Ref: "w12", Expected: "sha256:short"})
	p.forget("w12") // Not everybody made it.
	p.write("write: odd ref", &request{Action: stat, Ref: "../../odd\x01ref"})
	p.write("write: unknown action", &request{Action: 9, Ref: "w13"})
	p.write("write: negative offset", &request{Action: data, Ref: "w14", Offset: -1, Data: text})
	p.forget("w13")
	p.forget("w14")
	p.locked()
	responses, err := p.session(in("other"), &request{Action: stat, Ref: "shared", Total: 10, Expected: d})
	p.said("shared: another namespace starts at the end", responses, err)
	responses, err = p.session(in("other"), &request{Action: stat, Ref: "shared", Total: 10, Expected: d},
		&request{Action: commit, Total: 10, Offset: 10, Expected: d})
	p.said("shared: commit without sending", responses, err)
	p.call("status", ctx, func(ctx context.Context) (interface{}, error) {
		return p.content.Status(ctx, &contentapi.StatusRequest{Ref: "w2"})
	})
	p.call("status: missing", ctx, func(ctx context.Context) (interface{}, error) {
		return p.content.Status(ctx, &contentapi.StatusRequest{Ref: "missing"})
	})
	for _, filters := range [][]string{nil, {"ref==w2"}, {"ref~=/^w[12]$/"}, {"nonsense"}, {"ref="}} {
		p.call("statuses "+strings.Join(filters, " or "), ctx, func(ctx context.Context) (interface{}, error) {
			response, err := p.content.ListStatuses(ctx, &contentapi.ListStatusesRequest{Filters: filters})
			if err == nil {
				sort.Slice(response.Statuses, func(i, j int) bool { return response.Statuses[i].Ref < response.Statuses[j].Ref })
			}
			return response, err
		})
	}
	for _, ref := range []string{"w2", "w2", ""} {
		p.call("abort "+ref, ctx, func(ctx context.Context) (interface{}, error) {
			return p.content.Abort(ctx, &contentapi.AbortRequest{Ref: ref})
		})
	}
}

// forget aborts an ingest, if there is one.
func (p *prober) forget(ref string) {
	ctx, cancel := context.WithTimeout(in("probe"), callLimit)
	defer cancel()
	_, _ = p.content.Abort(ctx, &contentapi.AbortRequest{Ref: ref})
}

// locked opens a ref while another stream has it open.
func (p *prober) locked() {
	ctx, cancel := context.WithTimeout(in("probe"), callLimit)
	defer cancel()
	first, err := p.content.Write(ctx)
	if err == nil {
		err = first.Send(&request{Action: stat, Ref: "locked"})
	}
	if err == nil {
		_, err = first.Recv()
	}
	p.said("lock: first", nil, err)
	start := time.Now()
	responses, err := p.session(in("probe"), &request{Action: stat, Ref: "locked"})
	p.said("lock: second", responses, err)
	p.said("lock: second was refused within 2 s", time.Since(start) < 2*time.Second, nil)
	if err := first.CloseSend(); err == nil {
		_, _ = first.Recv()
	}
	// Clients close and reopen at once.
	responses, err = p.session(in("probe"), &request{Action: stat, Ref: "locked"})
	p.said("lock: after the first has closed", responses, err)
}
