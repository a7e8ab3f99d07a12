package dev

import (
	"context"
	"errors"
	"net/url"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A node that hangs is not one that starts.
func TestSeen(t *testing.T) {
	hung := &url.Error{Op: "Get", URL: "http://n/readyz", Err: context.DeadlineExceeded}
	shut := &url.Error{Op: "Get", URL: "http://n/readyz", Err: syscall.ECONNREFUSED}
	says := errors.New("503: no majority")
	for _, v := range []struct {
		was    State
		err    error
		now    State
		reason string
	}{
		{Ready, nil, Ready, ""}, {Starting, nil, Ready, ""},
		{Starting, shut, Starting, "connection refused"}, {Starting, says, Starting, "503: no majority"}, {Starting, hung, Starting, "nothing in 2s"},
		{Ready, hung, Silent, "nothing in 2s"}, {Ready, shut, Silent, "connection refused"}, {Ready, says, Unready, "503: no majority"},
	} {
		now, reason := seen(v.was, v.err)
		require.Equal(t, v.now, now, "%s, %v", v.was, v.err)
		require.Equal(t, v.reason, reason, "%s, %v", v.was, v.err)
	}
}
