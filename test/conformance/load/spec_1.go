//go:build !containerd2

package main

import "github.com/gogo/protobuf/types"

func anyOf(url string, value []byte) *types.Any { return &types.Any{TypeUrl: url, Value: value} }
