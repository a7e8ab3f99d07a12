package client

import (
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// serversMax bounds the addresses of one client; more is a mistake, and a round over them would take too long.
const serversMax = 64

// servers are the addresses of nodes that answer for the same tasks. All calls of a client ask the same node until it fails.
type servers struct {
	bases []string // at least one
	now   atomic.Uint32
}

// parseServers reads one address or several, separated by commas.
func parseServers(list string) ([]string, error) {
	var bases []string
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue // a comma at the end
		}
		if !strings.Contains(s, "://") {
			s = "http://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, noServer(s)
		}
		if s = strings.TrimRight(s, "/"); !slices.Contains(bases, s) {
			bases = append(bases, s)
		}
	}
	switch {
	case len(bases) == 0:
		return nil, noServer(list)
	case len(bases) > serversMax:
		return nil, fault.New(fault.Invalid, "client.new", "servers", "are %d: name at most %d", len(bases), serversMax)
	}
	return bases, nil
}

func noServer(s string) error {
	return fault.New(fault.Invalid, "client.new", s, "is no server address").
		WithRemedy("write it like http://127.0.0.1:8080, and several nodes of a cluster with commas between them")
}

// current returns the node that calls ask.
func (s *servers) current() string { return s.bases[int(s.now.Load())%len(s.bases)] }

// leave moves on from a node that failed, unless another call did so before, and returns the one to ask now.
func (s *servers) leave(base string) string {
	n := s.now.Load()
	if s.bases[int(n)%len(s.bases)] == base {
		s.now.CompareAndSwap(n, n+1)
	}
	return s.current()
}
