package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	caValid      = 10 * 365 * 24 * time.Hour
	nodeValid    = 2 * 365 * 24 * time.Hour // unless InitOptions say otherwise
	nodeValidMin = time.Minute
	backdate     = 5 * time.Minute // for clocks that are behind
)

// authority signs node certificates. ECDSA P-256: every TLS stack knows it, and it has assembly for the usual processors.
type authority struct {
	crt *x509.Certificate
	key crypto.Signer
}

// newAuthority makes the CA of a cluster; it returns certificate and key as PEM.
func newAuthority(cluster string, now time.Time) (a authority, crtPEM, keyPEM []byte, err error) {
	tpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Open-AutoGLM cluster " + cluster},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caValid),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs nodes only, no other authority
	}
	crt, key, crtPEM, keyPEM, err := mint(tpl, nil, nil)
	return authority{crt, key}, crtPEM, keyPEM, err
}

// node makes a node's certificate and key as PEM; both ends of a connection may show it.
func (a authority) node(cluster, name string, now time.Time, valid time.Duration) (crtPEM, keyPEM []byte, err error) {
	end := now.Add(valid)
	if end.After(a.crt.NotAfter) {
		end = a.crt.NotAfter // one that outlives its authority only misleads
	}
	tpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{name},
		URIs:                  []*url.URL{nodeURI(cluster, name)},
	}
	_, _, crtPEM, keyPEM, err = mint(tpl, a.crt, a.key)
	return crtPEM, keyPEM, err
}

// mint makes a key and has the parent sign a certificate for it; without a parent it signs itself.
func mint(tpl, parent *x509.Certificate, signer crypto.Signer) (crt *x509.Certificate, key crypto.Signer, crtPEM, keyPEM []byte, err error) {
	fail := func(err error) (*x509.Certificate, crypto.Signer, []byte, []byte, error) {
		return nil, nil, nil, nil, fault.New(fault.Unknown, "pki.mint", tpl.Subject.CommonName, "%w", err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	if tpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return fail(err)
	}
	if parent == nil {
		parent, signer = tpl, own
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, own.Public(), signer)
	if err != nil {
		return fail(err)
	}
	if crt, err = x509.ParseCertificate(der); err != nil {
		return fail(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return fail(err)
	}
	return crt, own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}
