package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// keys reads the keyset that is configured; nil: none.
func (e EncryptConfig) keys() (*seal.Keys, error) {
	text, field := []byte(e.Key.Reveal()), "encryption.key"
	if e.KeyFile != "" {
		var err error
		if text, err = seal.ReadFile(e.KeyFile); err != nil {
			return nil, err
		}
		field = e.KeyFile
	}
	if len(text) == 0 && e.KeyFile == "" {
		return nil, nil
	}
	k, err := seal.Parse(text, e.Standby)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return k, nil
}

// BadgerKey reads the key of Badger's own encryption; nil: none. Badger takes these three lengths.
func (s StoreConfig) BadgerKey() ([]byte, error) {
	if s.KeyFile == "" {
		return nil, nil
	}
	b, err := seal.ReadFile(s.KeyFile)
	if err != nil {
		return nil, err
	}
	if n := len(b); n != 16 && n != 24 && n != 32 {
		return nil, fault.New(fault.Invalid, "config", "store.encryption_key_file", "%s has %d bytes", s.KeyFile, n).
			WithRemedy("use 16, 24 or 32 random bytes and nothing else: head -c 32 /dev/urandom > %s", s.KeyFile)
	}
	return b, nil
}

// printsTold is how many of a node's keys gossip tells, the newest ones: more than a rotation has to do with.
const printsTold = 3

// tellKeys writes for gossip under which key a node seals and which ones it opens: "hash:hash,hash".
func tellKeys(k *seal.Keys) string {
	if k == nil {
		return ""
	}
	var opens []string
	all := k.Opens()
	for _, p := range all[max(0, len(all)-printsTold):] {
		opens = append(opens, short(p))
	}
	return short(k.Seals()) + ":" + strings.Join(opens, ",")
}

// short is the hash in a print: gossip has little room.
func short(p seal.Print) string {
	_, hash, _ := strings.Cut(string(p), "-")
	return hash[:min(len(hash), 8)]
}

// keysAgree tells whether two nodes can read what each of them writes from now on, by what gossip tells of them.
func keysAgree(a, b string) bool {
	opens := func(reader, writer string) bool {
		seals, _, _ := strings.Cut(writer, ":")
		_, has, _ := strings.Cut(reader, ":")
		return seals == "" || slices.Contains(strings.Split(has, ","), seals)
	}
	return opens(a, b) && opens(b, a)
}

// compareKeys ends this node when one that was started earlier could not read what this one writes, or the other way round: else that would
// be found only when a shard moves. The earlier one stays, so that a wrong file on one node never ends the others.
func (j *joint) compareKeys() {
	later, err := otherKeys(j.list.Self(), j.list.Members())
	for _, name := range later {
		j.n.log.Error("a node that was started later has other encryption keys: it ends by itself, and can come back with this node's", "node", name)
	}
	if err != nil {
		j.n.fatal(err)
	}
}

// maySeal tells whether this node may seal a shard with a key for the first time: those who vote with it must have been seen, and must all open
// what it seals. A node that does not agree ends, this one or the other, so this waits for a moment at most.
func (j *joint) maySeal() error {
	voters := 0
	for _, g := range j.n.store.Groups() {
		voters = max(voters, len(g.Replicas))
	}
	return sealable(j.list.Self(), j.list.Members(), voters)
}

func sealable(self members.Member, all []members.Member, voters int) error {
	if voters > 1 && len(all) <= voters/2 {
		return fault.New(fault.Unavailable, "node.cluster", self.Name, "%d of %d nodes were seen: whether they have this node's key is not known", len(all), voters)
	}
	for _, m := range all {
		if m.Name != self.Name && !keysAgree(self.Keys, m.Keys) {
			return differ(m)
		}
	}
	return nil
}

// otherKeys returns who of those that were started later does not agree with self, and an error when an earlier one does not.
func otherKeys(self members.Member, all []members.Member) (later []string, err error) {
	for _, m := range all {
		switch {
		case m.Name == self.Name || keysAgree(self.Keys, m.Keys):
		case m.Boot > self.Boot:
			later = append(later, m.Name)
		default:
			err = differ(m)
		}
	}
	return later, err
}

func differ(m members.Member) error {
	return fault.New(fault.Refused, "node.cluster", m.Name, "that node and this one cannot read what each other writes: their encryption keys differ").
		WithRemedy("give all nodes the same keyset. A new key goes to all of them before one seals with it: `autoglm encryption-key rotate` does it in two steps, and " +
			"encryption.standby lets a cluster without keys get its first one")
}
