//go:build containerd2

package main

import "google.golang.org/protobuf/types/known/anypb"

func anyOf(url string, value []byte) *anypb.Any { return &anypb.Any{TypeUrl: url, Value: value} }
