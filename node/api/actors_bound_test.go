package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBoundOfAnActorCall: a client that asks for no time leaves the end to the router, as every other request does; one that asks for
// more than WaitMax does not get it.
func TestBoundOfAnActorCall(t *testing.T) {
	a := actorService{&Server{lim: Limits{WaitMax: time.Minute}}}
	for _, c := range []struct{ asked, want time.Duration }{{0, 0}, {time.Second, time.Second}, {time.Hour, time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if c.asked != 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.asked)
				defer cancel()
			}
			ctx, cancel := a.bounded(ctx)
			defer cancel()
			end, ends := ctx.Deadline()
			require.Equal(t, c.want != 0, ends, c)
			if ends {
				require.Equal(t, c.want, time.Until(end), c)
			}
		})
	}
}
