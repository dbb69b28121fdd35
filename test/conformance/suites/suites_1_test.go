//go:build !containerd2

package suites

import "context"

// wrapper leaves out what the suites of 1 do not ask for.
func wrapper(in inNamespace) func(context.Context) (context.Context, func(context.Context) error, error) {
	return func(ctx context.Context) (context.Context, func(context.Context) error, error) { return in(ctx, false) }
}
