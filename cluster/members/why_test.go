package members

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// meant sends on what the log says a complaint means, by the seed it is about.
type meant struct{ said chan [2]string }

func (meant) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (m meant) WithAttrs([]slog.Attr) slog.Handler         { return m }
func (m meant) WithGroup(string) slog.Handler              { return m }
func (m meant) Handle(_ context.Context, r slog.Record) error {
	var said [2]string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "seed":
			said[0] = a.Value.String()
		case "means":
			said[1] += a.Value.String()
		case "err":
			said[1] += a.Value.String() + ": "
		}
		return true
	})
	select {
	case m.said <- said:
	default: // the test has what it wants
	}
	return nil
}

// TestWhyNobodyIsMet: a node that finds no other one says why, for each seed.
func TestWhyNobodyIsMet(t *testing.T) {
	o := options("key")
	o.Keys = [][]byte{bytes.Repeat([]byte{8}, keySize)}
	otherKey := start(t, o)
	o = options("cluster")
	o.Self.Cluster = "c2"
	otherCluster := start(t, o)
	api := httptest.NewServer(http.NotFoundHandler())
	defer api.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()

	missing := map[string]string{ // what it means, by seed
		"nosuch.invalid:7946":                  "the name has no address",
		nobody:                                 "nobody listens there",
		otherKey.Addr():                        "another gossip key",
		otherCluster.Addr():                    "another cluster",
		strings.TrimPrefix(api.URL, "http://"): "its cluster.listen",
	}
	o = options("a")
	for seed := range missing {
		o.Join = append(o.Join, seed)
	}
	o.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	m := meant{make(chan [2]string, 100)}
	o.Log = slog.New(m)
	start(t, o)
	for late := time.After(patience); len(missing) > 0; {
		select {
		case said := <-m.said:
			if want := missing[said[0]]; want != "" {
				if !strings.Contains(said[1], want) {
					t.Fatalf("seed %s means %q, want %q", said[0], said[1], want)
				}
				delete(missing, said[0])
			}
		case <-late:
			t.Fatal(fmt.Sprint("nothing was said of ", missing))
		}
	}
}
