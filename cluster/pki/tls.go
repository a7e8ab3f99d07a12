package pki

import (
	"crypto/tls"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Server returns the configuration of a listener that admits nodes of this cluster and nobody else. It uses new files
// from the next handshake on.
func (id *Identity) Server() *tls.Config {
	c := id.base()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		p := id.current()
		c := id.base()
		c.Certificates = []tls.Certificate{p.cert}
		c.ClientCAs = p.trust
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.VerifyConnection = func(s tls.ConnectionState) error {
			_, err := id.peer(s)
			return err
		}
		return c, nil
	}
	// For whoever checks a configuration before it is used; a handshake takes what is above.
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		p := id.current()
		return &p.cert, nil
	}
	return c
}

// Client returns the configuration to dial node peer of this cluster: whoever else answers is refused, another node of
// the cluster too. Make a new one for each connection, so that a new authority is trusted at once.
func (id *Identity) Client(peer string) *tls.Config {
	c := id.base()
	c.ServerName = peer
	c.RootCAs = id.current().trust
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		p := id.current()
		return &p.cert, nil
	}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		name, err := id.peer(s)
		if err == nil && name != peer {
			err = fault.New(fault.Refused, "pki.verify", peer, "node %s answered in its place", name).
				WithRemedy("check the addresses that the nodes advertise")
		}
		return err
	}
	return c
}

// base is what both sides share. No resumption: connections live long, and each handshake shall see the present files.
func (id *Identity) base() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Time: id.now}
}

// peer returns the name of the other end when it is of this cluster.
func (id *Identity) peer(s tls.ConnectionState) (string, error) {
	if len(s.VerifiedChains) == 0 {
		return "", fault.New(fault.Refused, "pki.verify", "", "the peer showed no verified certificate")
	}
	cluster, name, err := whose(s.PeerCertificates[0])
	if err != nil {
		return "", err
	}
	if cluster != id.Cluster {
		return "", fault.New(fault.Refused, "pki.verify", name, "the peer is of cluster %s, this is %s", cluster, id.Cluster).
			WithRemedy("give all nodes folders from one `autoglm init`")
	}
	return name, nil
}

// PeerName returns the name of the node at the other end of a connection made with Server or Client, or a Refused
// fault when the handshake is not over or no node was verified. The cluster was checked in the handshake.
func PeerName(s tls.ConnectionState) (string, error) {
	if !s.HandshakeComplete || len(s.VerifiedChains) == 0 {
		return "", fault.New(fault.Refused, "pki.verify", "", "the peer showed no verified certificate")
	}
	_, name, err := whose(s.PeerCertificates[0])
	return name, err
}
