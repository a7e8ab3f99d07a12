package main

import (
	"io"
	"net/http"
	"regexp"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/node"
)

// checkMetrics looks for every metric that the README tells to watch: among those that the actors may make, or in
// what the nodes show after a task.
func checkMetrics(t *testing.T, nodes []*deployed) {
	t.Helper()
	known := names{}
	meter.New(known)
	known.MustRegister(node.NewWorkMetrics(nil))
	for _, d := range nodes {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/metrics", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+d.key)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(string(b), -1) {
			known[m[1]] = true
		}
	}
	told := regexp.MustCompile("`((?:autoglm|go|process)_[a-z_]+)").FindAllStringSubmatch(string(readDeploy(t, "README.md")), -1)
	require.NotEmpty(t, told)
	for _, m := range told {
		require.True(t, known[m[1]], "docs/deploy/README.md tells of %s, which is no metric", m[1])
	}
}

// names is a registry that keeps the names only.
type names map[string]bool

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

func (n names) Register(c prometheus.Collector) error { n.MustRegister(c); return nil }
func (n names) Unregister(prometheus.Collector) bool  { return false }
func (n names) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		ch := make(chan *prometheus.Desc, 16)
		go func() { c.Describe(ch); close(ch) }()
		for d := range ch {
			n[fqName.FindStringSubmatch(d.String())[1]] = true
		}
	}
}
