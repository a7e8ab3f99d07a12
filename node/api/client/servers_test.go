package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestParseServers(t *testing.T) {
	for _, v := range []struct {
		in   string
		want []string
	}{
		{"a:1", []string{"http://a:1"}},
		{"http://a:1/, b:2,https://c", []string{"http://a:1", "http://b:2", "https://c"}},
		{"a:1,a:1,", []string{"http://a:1"}},
		{"", nil}, {",", nil}, {"ftp://x", nil}, {"a:1,http://", nil},
		{strings.Repeat("a:1,", serversMax+1), []string{"http://a:1"}},
	} {
		got, err := parseServers(v.in)
		require.Equal(t, v.want, got, v.in)
		require.Equal(t, v.want == nil, fault.KindOf(err) == fault.Invalid, v.in)
	}
}

// network answers requests by host, without any socket: synctest's clock runs over it.
type network struct {
	hosts map[string]func(*http.Request) (*http.Response, error)
	asked []string
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	n.asked = append(n.asked, r.URL.Host)
	return n.hosts[r.URL.Host](r)
}

func refused(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func says(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}, Request: r}, nil
	}
}

const (
	fine = `{"node":"n"}`
	busy = `{"kind":"unavailable","detail":"most nodes of shard 3 are down"}`
)

func TestFailover(t *testing.T) {
	for _, v := range []struct {
		name   string
		hosts  []func(*http.Request) (*http.Response, error)
		retry  time.Duration
		opts   []Option
		asked  string        // hosts in order, without the rounds that are waited for
		err    string        // "": it works
		within time.Duration // it never takes longer
	}{
		{"the first works", []func(*http.Request) (*http.Response, error){says(200, fine), refused}, time.Minute, nil, "a", "", 0},
		{"at once to the next", []func(*http.Request) (*http.Response, error){refused, says(503, busy), says(200, fine)}, time.Minute, nil, "a b c", "", 0},
		{"also with one try", []func(*http.Request) (*http.Response, error){refused, says(200, fine)}, 0, nil, "a b", "", 0},
		{"a hung one has its share of the time", []func(*http.Request) (*http.Response, error){silent, says(200, fine)}, 30 * time.Second, nil, "a b", "", 15 * time.Second},
		{"nobody there", []func(*http.Request) (*http.Response, error){refused, refused}, time.Minute, nil, "a b", "no node listens there", 0},
		{"who answers tells more than who is down", []func(*http.Request) (*http.Response, error){says(503, busy), refused}, 5 * time.Second, nil, "a b…", "most nodes of shard 3 are down", 5 * time.Second},
		{"what is wrong stays wrong", []func(*http.Request) (*http.Response, error){says(404, `{"kind":"not_found","detail":"no such task"}`), refused}, time.Minute, nil, "a", "no such task", 0},
		{"patience ends", []func(*http.Request) (*http.Response, error){refused}, 5 * time.Second, []Option{WithPatience()}, "a…", "no node listens there", 5 * time.Second},
		{"a slow refusal is not waited for longer", []func(*http.Request) (*http.Response, error){silent}, 5 * time.Second, nil, "a", "no answer within 5s", 5 * time.Second},
		{"the reason counts, not the end of the time", []func(*http.Request) (*http.Response, error){silent, says(503, busy)}, 5 * time.Second, nil, "a b…", "most nodes of shard 3 are down", 5 * time.Second},
	} {
		t.Run(v.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{hosts: map[string]func(*http.Request) (*http.Response, error){}}
				var list []string
				for i, h := range v.hosts {
					host := string(rune('a' + i))
					n.hosts[host], list = h, append(list, host)
				}
				c, err := New(strings.Join(list, ","), append([]Option{WithRetry(v.retry), WithHTTPClient(&http.Client{Transport: n})}, v.opts...)...)
				require.NoError(t, err)
				began := time.Now()
				_, err = c.Status(t.Context())
				require.LessOrEqual(t, time.Since(began), v.within)
				if v.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, v.err)
				}
				asked := strings.Join(n.asked, " ")
				if head, more := strings.CutSuffix(v.asked, "…"); more {
					require.Greater(t, len(asked), len(head))
					asked, v.asked = asked[:len(head)], head
				}
				require.Equal(t, v.asked, asked)
			})
		})
	}
}

// Who answered is asked again; a submit that fails over keeps its id.
func TestFailoverOfASubmitKeepsItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		take := func(answer func(*http.Request) (*http.Response, error)) func(*http.Request) (*http.Response, error) {
			return func(r *http.Request) (*http.Response, error) {
				b, err := io.ReadAll(r.Body)
				require.NoError(t, err)
				_, id, _ := strings.Cut(string(b), `"task_id":"`)
				ids = append(ids, id[:36])
				return answer(r)
			}
		}
		n := &network{hosts: map[string]func(*http.Request) (*http.Response, error){
			"a": take(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") }),
			"b": take(says(201, `{"existed":true}`)),
		}}
		c, err := New("a,b", WithHTTPClient(&http.Client{Transport: n}))
		require.NoError(t, err)
		spec := &task.Spec{Prompt: "p"}
		sub, err := c.Submit(t.Context(), spec)
		require.NoError(t, err)
		require.False(t, sub.Existed, "it was an earlier try of this call")
		require.Equal(t, []string{spec.ID, spec.ID}, ids)
		require.Equal(t, "http://b", c.Server())
		n.hosts["b"] = says(200, `{}`)
		_, err = c.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b", "b"}, n.asked)
	})
}

// Streams go on at the next node from where they were.
func TestFailoverOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cursors []string
		n := &network{hosts: map[string]func(*http.Request) (*http.Response, error){}}
		n.hosts["a"] = func(r *http.Request) (*http.Response, error) {
			body := io.MultiReader(strings.NewReader("{\"task_id\":\"1\",\"cursor\":\"k\"}\n"), broken{})
			return &http.Response{StatusCode: 200, Body: io.NopCloser(body), Header: http.Header{}, Request: r}, nil
		}
		n.hosts["b"] = func(r *http.Request) (*http.Response, error) {
			cursors = append(cursors, r.URL.Query().Get("cursor"))
			return says(200, "{\"task_id\":\"2\"}\n")(r)
		}
		c, err := New("a,b", WithHTTPClient(&http.Client{Transport: n}))
		require.NoError(t, err)
		var got []string
		_, err = c.Results(t.Context(), Query{}, false, func(r wire.Result) error {
			got = append(got, r.ID)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []string{"1", "2"}, got)
		require.Equal(t, []string{"k"}, cursors)

		n.asked = nil
		n.hosts["a"], n.hosts["b"] = refused, refused
		c.servers.now.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.ErrorIs(t, c.Follow(ctx, "t", 0, nil), syscall.ECONNREFUSED)
		require.Contains(t, strings.Join(n.asked, " "), "a b a b")
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
