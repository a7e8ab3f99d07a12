package members

// Member is one node as gossip tells of it: a hint, never a decision.
type Member struct {
	Name     string // stable, from its certificate
	Node     string // id of its data directory; "" before it has one
	Boot     string // of the process, new at each start, sorts by time of start: a UUIDv7
	Cluster  string // id; members of another cluster are refused
	Shards   int    // of the cluster; 0 before it has any
	Lineage  string // which founding of the cluster its data comes from; sorts by time; "" before it has any
	Founded  bool   // it belongs to a cluster that exists
	Gossip   string // host:port of the gossip; filled in by this package
	Raft     string // host:port of the Raft network
	Remote   string // host:port of the actor remote
	HTTP     string // host:port of the API, for people and redirects
	Keys     string // which keys its rows are sealed with, and which it opens, as package node writes it; "" for none
	Zone     string // replicas of a shard go to different ones where possible; may be empty
	Version  string // of the program
	Knows    int    // which kinds of things, as package node counts them; 0: a program from before there was a count
	Engines  int    // inference engines here
	Leaving  bool   // it is draining for good: give it nothing new, take from it what it has
	Stopping bool   // it stops now and may be back: send it nothing, leave it what it has
}
