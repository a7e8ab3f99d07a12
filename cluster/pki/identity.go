package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const recheck = time.Second // how often the files' times are looked at, at most

// Identity is a node's name and the means to prove it. Its methods may be called by several goroutines at once.
type Identity struct {
	Cluster    string    // id of the cluster
	Name       string    // of this node
	GossipKeys [][]byte  // 32 bytes each; the first encrypts, all are accepted. As of Load
	Callback   string    // secret that signs the callbacks of all nodes, as Standard Webhooks writes it
	Expires    time.Time // when the certificate ends, as of Load

	// OnReload is told about every attempt to use files that changed: nil when they are in use now, or why the
	// old ones stay. It may be set before the Identity is first used.
	OnReload func(error)

	dir string
	now func() time.Time

	mu     sync.Mutex
	used   proof
	looked time.Time
}

// proof is what a node shows and what it trusts, as of some state of the files.
type proof struct {
	cert  tls.Certificate
	trust *x509.CertPool
	seen  [3]stamp
}

type stamp struct {
	mtime time.Time
	size  int64
}

var watched = [3]string{nodeCrt, nodeKey, caCrt}

// Load reads a node's folder and checks it: all files readable, the key kept from the world, certificate and key of one
// pair, in date, signed by the cluster's authority, and naming this node. Each failure says what to do.
func Load(dir string) (*Identity, error) {
	desc, err := readAbout(dir)
	if err != nil {
		return nil, err
	}
	if desc.Name == "" {
		return nil, fault.New(fault.Invalid, "pki.load", dir, "this is the folder of a cluster, not of a node").
			WithRemedy("name one of the folders in %s", filepath.Join(dir, nodesDir))
	}
	b, err := read(dir, gossipFile)
	if err != nil {
		return nil, err
	}
	if err := secret(filepath.Join(dir, gossipFile)); err != nil {
		return nil, err
	}
	r, err := decodeRing(b)
	if err != nil {
		return nil, err
	}
	hook, err := read(dir, hookFile)
	if err != nil {
		return nil, err
	}
	if err := secret(filepath.Join(dir, hookFile)); err != nil {
		return nil, err
	}
	id := &Identity{Cluster: desc.Cluster, Name: desc.Name, GossipKeys: r.keys, Callback: strings.TrimSpace(string(hook)), dir: dir, now: time.Now}
	if id.used, err = id.prove(); err != nil {
		return nil, err
	}
	id.Expires = id.used.cert.Leaf.NotAfter
	id.looked = id.now()
	return id, nil
}

// prove reads certificate, key and authority, and checks that they belong together and to this node.
func (id *Identity) prove() (proof, error) {
	const op = "pki.load"
	p := proof{seen: id.stamps()} // taken first: a file that changes from here on is read again
	path := filepath.Join(id.dir, nodeCrt)
	crt, err := read(id.dir, nodeCrt)
	if err != nil {
		return p, err
	}
	key, err := read(id.dir, nodeKey)
	if err != nil {
		return p, err
	}
	if err := secret(filepath.Join(id.dir, nodeKey)); err != nil {
		return p, err
	}
	ca, err := read(id.dir, caCrt)
	if err != nil {
		return p, err
	}
	if p.cert, err = tls.X509KeyPair(crt, key); err != nil {
		return p, fault.New(fault.Invalid, op, path, "%w", err).WithRemedy("copy node.crt and node.key again, both from the same folder")
	}
	leaf := p.cert.Leaf
	p.trust = x509.NewCertPool()
	if !p.trust.AppendCertsFromPEM(ca) {
		return p, fault.New(fault.Corrupt, op, filepath.Join(id.dir, caCrt), "no certificate in it").WithRemedy("copy ca.crt again")
	}
	switch now := id.now(); {
	case now.After(leaf.NotAfter):
		return p, fault.New(fault.Refused, op, path, "the certificate expired at %v", leaf.NotAfter.Format(time.RFC3339)).
			WithRemedy("mint the node again (remove its folder, `autoglm init --add-node %s`), or correct this machine's clock", id.Name)
	case now.Before(leaf.NotBefore):
		return p, fault.New(fault.Refused, op, path, "the certificate begins at %v", leaf.NotBefore.Format(time.RFC3339)).
			WithRemedy("correct this machine's clock")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: p.trust, CurrentTime: id.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return p, fault.New(fault.Refused, op, path, "%w", err).WithRemedy("copy the node's folder again, whole: ca.crt is of another cluster")
	}
	cluster, name, err := whose(leaf)
	if err != nil {
		return p, fault.New(fault.Refused, op, path, "%w", err)
	}
	if cluster != id.Cluster || name != id.Name {
		return p, fault.New(fault.Refused, op, path, "the certificate is for node %s of cluster %s, not %s of %s", name, cluster, id.Name, id.Cluster).
			WithRemedy("copy the folder nodes/%s, whole", id.Name)
	}
	return p, nil
}

// secret refuses a file that anyone on the machine may read. A group may: that is how Kubernetes mounts secrets.
func secret(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fileFault("pki.load", path, err)
	}
	if st.Mode().Perm()&0o007 != 0 {
		return fault.New(fault.Refused, "pki.load", path, "everyone on this machine may read it (mode %04o)", st.Mode().Perm()).
			WithRemedy("chmod 600 %s; for a Kubernetes secret set defaultMode: 0440", path)
	}
	return nil
}

func (id *Identity) stamps() (s [3]stamp) {
	for i, name := range watched {
		if st, err := os.Stat(filepath.Join(id.dir, name)); err == nil {
			s[i] = stamp{st.ModTime(), st.Size()}
		}
	}
	return s
}

// current returns the proof in use, after a look at the files if the last one is a while ago. Files that changed and are
// not right (half copied, say) are left alone until they change again or are right at the next look.
func (id *Identity) current() proof {
	id.mu.Lock()
	now := id.now()
	if now.Sub(id.looked) < recheck {
		defer id.mu.Unlock()
		return id.used
	}
	id.looked = now
	if id.stamps() == id.used.seen {
		defer id.mu.Unlock()
		return id.used
	}
	p, err := id.prove()
	if err == nil {
		id.used = p
	}
	used := id.used
	id.mu.Unlock()
	if id.OnReload != nil {
		id.OnReload(err)
	}
	return used
}
