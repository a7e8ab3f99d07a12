package node

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// newPoster signs with the configured secret, or with one that is made once and kept
// in the data directory.
func (n *Node) newPoster() (*callback.Poster, error) {
	c := n.cfg.Callback
	secret := c.Secret.Reveal()
	switch {
	case c.SecretFile != "":
		b, err := os.ReadFile(c.SecretFile)
		if err != nil {
			return nil, fault.New(fault.Invalid, "config", "callback.secret_file", "%w", err).WithRemedy("name a file with whsec_ and base64, readable by this user")
		}
		secret = strings.TrimSpace(string(b))
	case secret == "" && n.joint != nil:
		secret = n.joint.id.Callback // the same on all nodes
	case secret == "":
		var err error
		if secret, err = callback.LoadOrCreateSecret(n.dataPath("callback.secret")); err != nil {
			return nil, err
		}
	}
	nets, err := prefixes("callback.allowed_nets", c.AllowedNets)
	if err != nil {
		return nil, err
	}
	return callback.New(callback.Options{Secret: secret, Timeout: c.Timeout, Egress: egress.Policy{
		// Whoever can submit to a loopback listener without a key is on this machine already.
		AllowLoopback: n.cfg.local() && !n.cfg.keysNeeded(), AllowPrivate: c.AllowPrivate, Allow: nets,
	}})
}

// dispatcher joins tasks, the poster and the schedule.
func (n *Node) dispatcher(asker callback.Asker) task.Callbacks {
	post := func(ctx context.Context, id string, r *task.Record) error {
		body, err := callback.Body(id, *r)
		if err != nil {
			return err
		}
		return n.poster.Post(ctx, callback.Delivery{URL: r.Spec.CallbackURL, ID: callback.MessageID(id), Timestamp: n.now(), Body: body, Trace: r.Trace, Tenant: tenant.Of(id)})
	}
	n.calls = callback.NewDispatcher(asker, n.cfg.Callback.InFlight, max(1, n.cfg.Callback.InFlight/4), post, n.callAgain, n.meter, n.now, n.log)
	return n.calls
}

// callAgain tells what follows a try that failed.
func (n *Node) callAgain(try int, err error) (wait time.Duration, giveUp bool) {
	if callback.Final(err) || try >= n.cfg.Callback.Attempts {
		return 0, true
	}
	return callback.Next(try, backoff.AskedBy(err), rand.Float64())
}
