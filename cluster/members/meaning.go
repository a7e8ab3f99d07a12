package members

import "strings"

// meaning says what a person can do about a complaint of memberlist's or of the network's, "" where the text says it all. memberlist tells
// only in words what went wrong, and a peer that refuses this node only hangs up.
func meaning(text string) string {
	text = strings.ToLower(text)
	for _, m := range meanings {
		for _, part := range m.parts {
			if strings.Contains(text, part) {
				return m.means
			}
		}
	}
	return ""
}

var meanings = []struct {
	parts []string // in small letters
	means string
}{
	{[]string{"unacceptable label", "unexpected double label", "belongs to cluster"},
		"the other one belongs to another cluster: compare cluster.json in the identity folders of both"},
	{[]string{"no installed keys could decrypt"},
		"the other one has another gossip key: compare gossip.key in the identity folders of both"},
	{[]string{"is not encrypted", "invalid packet type", "received invalid msgtype"},
		"what answers there is no gossip of a node: name the port of its cluster.listen (7946 unless it is set), not that of its API"},
	{[]string{"no such host", "server misbehaving", "temporary failure in name resolution", "the name has no address"},
		"the name has no address: check how it is spelled, and what DNS or /etc/hosts of this machine say"},
	{[]string{"connection refused"},
		"nobody listens there: is that node started, and is this the address and port of its cluster.listen?"},
	{[]string{"i/o timeout", "no route to host", "network is unreachable", "deadline exceeded"},
		"it cannot be reached: check the address, and that the network lets the port of its cluster.listen (TCP and UDP; 7946 unless it is set) and the two after it through"},
	{[]string{"eof", "connection reset", "broken pipe"},
		"it hung up, as a node does that has another gossip key or belongs to another cluster, and as what is no node does: compare gossip.key and cluster.json, and the port with its cluster.listen"},
}
