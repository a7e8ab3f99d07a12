package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	// socketPathMax is the room for a socket's path in the kernel's sun_path, with its final 0: 104 bytes on the BSDs,
	// 108 on Linux.
	socketPathMax  = 103
	controlHeadMax = 4 << 10          // bytes of a request's head; there are no bodies
	controlWait    = 10 * time.Minute // longest command
)

// control is HTTP on a unix socket that only this user can open:
//
//	GET /nodes     POST /nodes (add)     POST /nodes/NAME/start|stop|restart?wait=30s     stop: &force=1
type control struct {
	path   string
	tmp    string // folder made for the socket because DIR is too deep; "" without
	server *http.Server
	done   chan struct{}
	once   sync.Once
	cancel context.CancelFunc
}

func listenControl(c *Cluster) (*control, error) {
	ctx, cancel := context.WithCancel(context.Background())
	k := &control{path: filepath.Join(c.dir, socketName), done: make(chan struct{}), cancel: cancel}
	if len(k.path) > socketPathMax {
		var err error
		if k.tmp, err = os.MkdirTemp("", "autoglm-dev-"); err != nil { // mode 0700
			cancel()
			return nil, fileFault(os.TempDir(), err)
		}
		k.path = filepath.Join(k.tmp, socketName)
		if len(k.path) > socketPathMax {
			k.close()
			return nil, fault.New(fault.Invalid, "dev.control", k.path, "a socket's path has room for %d bytes", socketPathMax).
				WithRemedy("use a shorter --data-dir or TMPDIR")
		}
	}
	if err := os.Remove(k.path); err != nil && !errors.Is(err, os.ErrNotExist) { // a dead dev's: we have the lock
		k.close()
		return nil, fileFault(k.path, err)
	}
	l, err := net.Listen("unix", k.path)
	if err == nil {
		err = os.Chmod(k.path, 0o600)
	}
	if err != nil {
		k.close()
		return nil, fileFault(k.path, err)
	}
	k.server = &http.Server{Handler: c.handler(), MaxHeaderBytes: controlHeadMax, ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() {
		defer close(k.done)
		_ = k.server.Serve(l) // ErrServerClosed
	}()
	return k, nil
}

// close ends commands under way and removes the socket.
func (k *control) close() {
	k.once.Do(func() {
		k.cancel()
		if k.server != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second) // for the last answers
			defer cancel()
			if k.server.Shutdown(ctx) != nil {
				k.server.Close()
			}
			<-k.done
		}
		os.Remove(k.path)
		if k.tmp != "" {
			os.RemoveAll(k.tmp)
		}
	})
}

func (c *Cluster) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, c.Status(r.Context()))
	})
	mux.HandleFunc("POST /nodes", func(w http.ResponseWriter, r *http.Request) {
		c.command(w, r, func(ctx context.Context) (Node, error) { return c.AddNode(ctx) })
	})
	for verb, do := range map[string]func(context.Context, string) error{"start": c.StartNode, "stop": c.StopNode, "restart": c.RestartNode} {
		mux.HandleFunc("POST /nodes/{name}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			c.command(w, r, func(ctx context.Context) (Node, error) {
				name := r.PathValue("name")
				if verb == "stop" && r.FormValue("force") == "" {
					if err := keepsMajority(c.Nodes(), name); err != nil {
						return Node{}, err
					}
				}
				if err := do(ctx, name); err != nil {
					return Node{}, err
				}
				return c.Node(name)
			})
		})
	}
	return mux
}

func (c *Cluster) command(w http.ResponseWriter, r *http.Request, do func(context.Context) (Node, error)) {
	wait, err := time.ParseDuration(r.FormValue("wait"))
	if err != nil || wait <= 0 || wait > controlWait {
		refuse(w, fault.New(fault.Invalid, "dev.control", "wait", "is %q: use a duration up to %v", r.FormValue("wait"), controlWait))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	n, err := do(ctx)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, n)
}

func refuse(w http.ResponseWriter, err error) {
	p := wire.ProblemOf(err)
	answer(w, p.Status, p)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the other side went away
}

// Client commands the dev that runs in a folder.
type Client struct {
	dir  string
	path string
}

// Dial finds the dev that runs on dir: NotFound when none ever did, Unavailable when none does now.
func Dial(dir string) (*Client, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fileFault(dir, err)
	}
	f, err := ReadFile(dir)
	if err != nil {
		return nil, err
	}
	if f.PID == 0 || f.Socket == "" {
		return nil, noDev(dir, errors.New("it was stopped"))
	}
	return &Client{dir: dir, path: f.Socket}, nil
}

func noDev(dir string, err error) error {
	return fault.New(fault.Unavailable, "dev.control", dir, "no `autoglm dev` runs there: %w", err).
		WithRemedy("start it with: autoglm dev --data-dir %s", dir)
}

func dialUnix(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
}

// Status asks how the nodes are, each looked at afresh.
func (c *Client) Status(ctx context.Context) (nodes []Node, err error) {
	return nodes, c.call(ctx, http.MethodGet, "/nodes", &nodes)
}

// Add makes and starts another node, and waits until it is ready, or for wait.
func (c *Client) Add(ctx context.Context, wait time.Duration) (n Node, err error) {
	return n, c.call(ctx, http.MethodPost, "/nodes?wait="+wait.String(), &n)
}

// Start starts a node that is down and waits until it is ready, or for wait (Timeout: it goes on starting).
func (c *Client) Start(ctx context.Context, name string, wait time.Duration) (Node, error) {
	return c.verb(ctx, name, "start", wait)
}

// Stop stops a node in order; after wait it is killed. Unless force is set, a stop that leaves less than a majority of the nodes is
// refused.
func (c *Client) Stop(ctx context.Context, name string, wait time.Duration, force bool) (Node, error) {
	if force {
		return c.verb(ctx, name, "stop", wait, "&force=1")
	}
	return c.verb(ctx, name, "stop", wait)
}

// Restart stops a node in order, starts it and waits until it is ready, all in wait.
func (c *Client) Restart(ctx context.Context, name string, wait time.Duration) (Node, error) {
	return c.verb(ctx, name, "restart", wait)
}

func (c *Client) verb(ctx context.Context, name, verb string, wait time.Duration, more ...string) (n Node, err error) {
	if err := checkName(name); err != nil {
		return n, err
	}
	return n, c.call(ctx, http.MethodPost, fmt.Sprintf("/nodes/%s/%s?wait=%s", name, verb, wait)+strings.Join(more, ""), &n)
}

func checkName(name string) error {
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fault.New(fault.Invalid, "dev.control", "name", "is %q: nodes are called node-1, node-2, …", name)
		}
	}
	if name == "" {
		return fault.New(fault.Invalid, "dev.control", "name", "is empty")
	}
	return nil
}

func (c *Client) call(ctx context.Context, method, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://dev"+path, nil)
	if err != nil {
		return fault.New(fault.Invalid, "dev.control", path, "%w", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialUnix(c.path)}}
	res, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return noDev(c.dir, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var p wire.Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Kind == "" {
			return fault.New(wire.KindOfStatus(res.StatusCode), "dev.control", path, "%s", res.Status)
		}
		return p.Fault("dev.control")
	}
	if err := json.NewDecoder(res.Body).Decode(v); err != nil {
		return fault.New(fault.Unavailable, "dev.control", path, "the answer was cut off: %w", err)
	}
	return nil
}
