package placement

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const voteFormat = 1

// Voter keeps this node's vote, and its own candidacy, in a file: on disk before anybody hears of it. It is
// safe for many goroutines; one process at a time (the data directory's lock).
type Voter struct {
	path string
	self members.Member // name, node and cluster

	mu sync.Mutex
	voteFile
}

type voteFile struct {
	Format int    `json:"format"`
	Vote   Vote   `json:"vote"`
	Ballot uint64 `json:"ballot"` // of the node's own candidacy; those below are given up
}

const voteRemedy = "only where it is certain that this founder never started a cluster, stop this node and delete the file"

// OpenVoter reads the file, or makes ready to write it. Self is this node with its name, node id and cluster. A file
// that cannot be read is Corrupt, and so is one for another cluster Conflict.
func OpenVoter(path string, self members.Member) (*Voter, error) {
	if self.Name == "" || self.Node == "" || self.Cluster == "" {
		return nil, fault.New(fault.Invalid, "placement.vote", path, "a voter needs a name, a node id and a cluster")
	}
	v := &Voter{path: path, self: self, voteFile: voteFile{Format: voteFormat, Ballot: 1}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "placement.vote", path, "%w", err)
	}
	var f voteFile
	if err := json.Unmarshal(b, &f); err != nil || f.Format != voteFormat || f.Ballot == 0 {
		return nil, fault.New(fault.Corrupt, "placement.vote", path, "is not a vote of format %d: %w", voteFormat, err).WithRemedy(voteRemedy)
	}
	if f.Vote != (Vote{}) && f.Vote.Cluster != self.Cluster {
		return nil, fault.New(fault.Conflict, "placement.vote", path, "it is for cluster %q, this node for %q", f.Vote.Cluster, self.Cluster).
			WithRemedy("a data directory belongs to one cluster: use a new one, or the old cluster id")
	}
	v.voteFile = f
	return v, nil
}

// Vote returns the vote, and the ballot of this node's own candidacy.
func (v *Voter) Vote() (Vote, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.voteFile.Vote, v.Ballot
}

// Judge answers a candidate, this node itself included. A vote that it grants is on disk.
func (v *Voter) Judge(b Ballot, self members.Member, seen []members.Member) (Verdict, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vote, verdict := judge(Seen{Self: self, Members: seen, Vote: v.voteFile.Vote, Ballot: v.Ballot}, b)
	if b.Name == v.self.Name && b.Node == v.self.Node && b.Number != v.Ballot {
		// An echo of this node's own past.
		return Verdict{Why: "that candidacy is given up"}, nil
	}
	if err := v.save(vote, v.Ballot); err != nil {
		return Verdict{}, err
	}
	return verdict, nil
}

// Candidacy returns the ballot to ask others with.
func (v *Voter) Candidacy() Ballot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Ballot{Cluster: v.self.Cluster, Name: v.self.Name, Node: v.self.Node, Number: v.Ballot}
}

// Withdraw gives this node's candidacy up, on disk, and returns the word of it for the others. What they granted
// counts no more. Without a candidacy the word is still true.
func (v *Voter) Withdraw() (Ballot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vote, ballot := v.voteFile.Vote, v.Ballot
	if vote.Name == v.self.Name && vote.Node == v.self.Node {
		vote, ballot = Vote{}, ballot+1
	}
	if err := v.save(vote, ballot); err != nil {
		return Ballot{}, err
	}
	return Ballot{Cluster: v.self.Cluster, Name: v.self.Name, Node: v.self.Node, Number: v.Ballot, Void: true}, nil
}

// save runs under mu. A crash leaves the old file or the new one, on disk.
func (v *Voter) save(vote Vote, ballot uint64) error {
	f := voteFile{Format: voteFormat, Vote: vote, Ballot: ballot}
	if f == v.voteFile {
		return nil
	}
	b, err := json.Marshal(f)
	if err == nil {
		err = persistence.ReplaceFile(v.path, append(b, '\n'))
	}
	if err != nil {
		return fault.New(fault.Unavailable, "placement.vote", v.path, "%w", err).WithRemedy("check the directory, its permissions and its disk")
	}
	v.voteFile = f
	return nil
}
