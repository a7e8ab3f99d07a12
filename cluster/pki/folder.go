package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Files of a cluster's folder and of a node's.
const (
	caCrt      = "ca.crt"
	caKey      = "ca.key"
	nodeCrt    = "node.crt"
	nodeKey    = "node.key"
	gossipFile = "gossip.key"
	hookFile   = "callback.secret"
	about      = "cluster.json"
	nodesDir   = "nodes"
	formatNow  = 1 // of cluster.json
)

// aboutFile is cluster.json. Unknown fields are ignored, a newer format refused.
type aboutFile struct {
	Format    int           `json:"format"`
	Cluster   string        `json:"cluster"`
	Name      string        `json:"name,omitempty"`      // of the node, in a node's folder
	NodeValid time.Duration `json:"node_valid,omitzero"` // nanoseconds; for nodes added later
	APINames  []string      `json:"api_names,omitempty"` // likewise
}

// InitOptions say what Init makes.
type InitOptions struct {
	Cluster  string        // id of the cluster, a name as in CheckName; empty: a random one
	Nodes    []string      // names of the first nodes; more by AddNode
	ValidFor time.Duration // of the nodes' certificates; 0: two years. Never past the authority's ten years
	APINames []string      // host names and addresses under which clients reach the nodes, besides a node's own name and localhost
	Admin    AdminKey      // the operator's first API key; none: SetAdminKey makes one later
}

// Init makes the folder of a new cluster: authority, gossip key, and a folder for each node. dir must not exist or be
// empty (Conflict): an authority that is made again shuts out every node of the old one. It is made whole or not at all.
func Init(dir string, o InitOptions) error {
	const op = "pki.init"
	if o.Cluster == "" {
		o.Cluster = uuid.NewString()
	}
	if o.ValidFor == 0 {
		o.ValidFor = nodeValid
	}
	if err := o.check(); err != nil {
		return err
	}
	if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
		return fault.New(fault.Conflict, op, dir, "the folder is in use").
			WithRemedy("name another folder, or add a node to this cluster with --add-node")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fileFault(op, dir, err)
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fileFault(op, dir, err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-") // mode 0700
	if err != nil {
		return fileFault(op, dir, err)
	}
	defer os.RemoveAll(tmp) // gone by its name when all went well
	if err := fill(tmp, o); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // empty, or somebody filled it meanwhile
		return fileFault(op, dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fileFault(op, dir, err)
	}
	return syncDir(filepath.Dir(dir))
}

func (o InitOptions) check() error {
	for _, n := range append([]string{o.Cluster}, o.Nodes...) {
		if err := CheckName(n); err != nil {
			return err
		}
	}
	if sorted := slices.Sorted(slices.Values(o.Nodes)); len(slices.Compact(sorted)) < len(o.Nodes) {
		return fault.New(fault.Invalid, "pki.init", "", "a node is named twice in %q", o.Nodes)
	}
	if err := checkAPINames(o.APINames); err != nil {
		return err
	}
	if o.ValidFor < nodeValidMin || o.ValidFor > caValid {
		return fault.New(fault.Invalid, "pki.init", "", "certificates valid for %v", o.ValidFor).
			WithRemedy("choose %v to %v", nodeValidMin, caValid)
	}
	return nil
}

// fill writes a new cluster into an empty folder.
func fill(dir string, o InitOptions) error {
	now := time.Now()
	a, crt, key, err := newAuthority(o.Cluster, now)
	if err != nil {
		return err
	}
	first, err := newGossipKey()
	if err != nil {
		return err
	}
	gossip := ring{[][]byte{first}, -1}.encode()
	hook, err := newCallbackSecret()
	if err != nil {
		return err
	}
	desc := aboutFile{Format: formatNow, Cluster: o.Cluster, NodeValid: o.ValidFor, APINames: o.APINames}
	files := map[string][]byte{caCrt: crt, caKey: key, gossipFile: gossip, hookFile: hook, about: desc.encode()}
	if o.Admin.Key != "" {
		files[adminKey], files[adminHash] = []byte(o.Admin.Key+"\n"), []byte(o.Admin.Hash+"\n")
	}
	if err := writeAll(dir, files); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, nodesDir), 0o700); err != nil {
		return fileFault("pki.init", dir, err)
	}
	for _, name := range o.Nodes {
		if err := addNode(dir, name, desc, a, crt, gossip, now); err != nil {
			return err
		}
	}
	return syncDir(filepath.Join(dir, nodesDir))
}

// newCallbackSecret makes what signs callbacks, as Standard Webhooks writes it. All nodes share it: any of them may call back,
// and a receiver checks with one.
func newCallbackSecret() ([]byte, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fault.New(fault.Unavailable, "pki.init", "", "no random bytes: %w", err)
	}
	return []byte("whsec_" + base64.StdEncoding.EncodeToString(key[:]) + "\n"), nil
}

// AddNode mints another node of the cluster in dir. A node that exists is refused (Conflict): its certificate would be
// valid still.
func AddNode(dir, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, nodesDir, name)); err == nil {
		return fault.New(fault.Conflict, "pki.add", name, "the node has its folder already").
			WithRemedy("copy %s, or remove it first to mint new keys", filepath.Join(dir, nodesDir, name))
	}
	a, crt, desc, gossip, err := open(dir)
	if err != nil {
		return err
	}
	if err := addNode(dir, name, desc, a, crt, gossip.encode(), time.Now()); err != nil {
		return err
	}
	return syncDir(filepath.Join(dir, nodesDir))
}

// addNode makes a node's folder beside its place and then renames it, so that a half one is never copied.
func addNode(dir, name string, desc aboutFile, a authority, ca, gossip []byte, now time.Time) error {
	valid := desc.NodeValid
	if valid <= 0 {
		valid = nodeValid // cluster.json does not say
	}
	crt, key, err := a.node(desc.Cluster, name, now, valid)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Join(dir, nodesDir), ".new-")
	if err != nil {
		return fileFault("pki.add", name, err)
	}
	defer os.RemoveAll(tmp)
	hook, err := read(dir, hookFile)
	if err != nil {
		return err
	}
	shown, shownKey, err := a.api(name, desc.APINames, now, valid)
	if err != nil {
		return err
	}
	admin, err := optional(dir, adminHash)
	if err != nil {
		return err
	}
	files := map[string][]byte{nodeCrt: crt, nodeKey: key, apiCrt: shown, apiKey: shownKey, caCrt: ca, gossipFile: gossip, hookFile: hook,
		about: aboutFile{Format: formatNow, Cluster: desc.Cluster, Name: name}.encode()}
	if admin != nil {
		files[adminHash] = admin
	}
	if err := writeAll(tmp, files); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, nodesDir, name)); err != nil {
		return fileFault("pki.add", name, err)
	}
	return nil
}

// RotateGossipKey takes the next step of a rotation in the cluster's folder and in all its nodes' folders. Three calls
// replace the key; Step.Next says what must be done between them, and deployed that it was: without it a second or third step is
// refused (Conflict), for it would cut off every node that does not have the step before.
func RotateGossipKey(dir string, deployed bool) (Step, error) {
	_, _, _, r, err := open(dir)
	if err != nil {
		return "", err
	}
	if last := r.last(); last != "" && !deployed {
		return "", fault.New(fault.Conflict, "pki.gossip", dir, "the last step, %s, must be on every node before the next one", last).
			WithRemedy("%s", last.Next())
	}
	made, err := newGossipKey()
	if err != nil {
		return "", err
	}
	next, step := r.rotate(made)
	names, err := Nodes(dir)
	if err != nil {
		return "", err
	}
	// The nodes first: if this stops halfway, the cluster's own file is the old one, and the same step is taken again.
	for _, name := range names {
		if err := writeAll(filepath.Join(dir, nodesDir, name), map[string][]byte{gossipFile: next.encode()}); err != nil {
			return "", err
		}
	}
	return step, writeAll(dir, map[string][]byte{gossipFile: next.encode()})
}

// Nodes returns the names of the nodes in a cluster's folder, sorted.
func Nodes(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, nodesDir))
	if err != nil {
		return nil, fileFault("pki.nodes", dir, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Cluster returns the id of the cluster in dir, or of the cluster that the node of folder dir belongs to.
func Cluster(dir string) (string, error) {
	d, err := readAbout(dir)
	return d.Cluster, err
}

// open reads a cluster's folder.
func open(dir string) (a authority, crtPEM []byte, desc aboutFile, gossip ring, err error) {
	if desc, err = readAbout(dir); err != nil {
		return
	}
	if crtPEM, err = readOwn(dir, caCrt); err != nil {
		return
	}
	keyPEM, err := readOwn(dir, caKey)
	if err != nil {
		return
	}
	pair, err := tls.X509KeyPair(crtPEM, keyPEM)
	if err != nil {
		err = fault.New(fault.Corrupt, "pki.open", filepath.Join(dir, caKey), "%w", err).WithRemedy("restore ca.crt and ca.key from a copy")
		return
	}
	signer, _ := pair.PrivateKey.(crypto.Signer) // every key that crypto/tls parses is one
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return
	}
	a = authority{leaf, signer}
	b, err := readOwn(dir, gossipFile)
	if err != nil {
		return
	}
	gossip, err = decodeRing(b)
	return
}

// readOwn reads a file of a cluster's folder. What is lost there comes back from the operator's copy only.
func readOwn(dir, name string) ([]byte, error) {
	b, err := read(dir, name)
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.NotFound {
		return b, err
	}
	if _, err := os.Stat(filepath.Join(dir, nodeCrt)); err == nil {
		return nil, f.WithRemedy("%s is a node's folder: name the cluster's own, which `autoglm init` made and which holds ca.key", dir)
	}
	return nil, f.WithRemedy("put %s back from your copy of the cluster's folder: it cannot be made again, and without it no node can be added; the nodes that there are go on", name)
}
