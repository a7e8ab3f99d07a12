package task

import (
	"slices"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/tenant"
)

// A queue is a tenant's, a model's, and an endpoint's other than chat: no engine must be given what it does not serve, and
// one tenant's tasks must not stand before another's. Chat of the default tenant has the model's plain name, as all tasks had before
// there were others.
const (
	endpointMark = "\x1f" // no model's name has either, see checkModelName
	tenantMark   = "\x1e"
)

// QueueMax bounds a queue's name, in bytes.
const QueueMax = IDMax + len(endpointMark) + len(EndpointChat) + len(tenantMark) + tenant.NameMax

// Lot is what a queue's name is made of.
type Lot struct{ Model, Endpoint, Tenant string }

// QueueOf names the queue of a lot.
func QueueOf(l Lot) string {
	name := l.Model
	if l.Endpoint != EndpointChat {
		name += endpointMark + l.Endpoint
	}
	if l.Tenant != tenant.Default {
		name += tenantMark + l.Tenant
	}
	return name
}

// SplitQueue is the inverse of QueueOf.
func SplitQueue(queue string) Lot {
	l := Lot{Endpoint: EndpointChat, Tenant: tenant.Default}
	rest, whose, ok := strings.Cut(queue, tenantMark)
	if ok {
		l.Tenant = whose
	}
	model, endpoint, ok := strings.Cut(rest, endpointMark)
	if ok {
		l.Endpoint = endpoint
	}
	l.Model = model
	return l
}

// Offers returns the queues that an engine with these models and endpoints serves, without tenants; "*" stands for all models.
func Offers(models, endpoints []string) []string {
	all := make([]string, 0, len(models)*len(endpoints))
	for _, e := range endpoints {
		for _, m := range models {
			all = append(all, QueueOf(Lot{m, e, tenant.Default}))
		}
	}
	return all
}

// Serves tells whether an engine that made these offers serves a queue, whosever it is. The queue AnyModel is everybody's who
// serves its endpoint.
func Serves(offers []string, queue string) bool {
	if queue, _, _ = strings.Cut(queue, tenantMark); slices.Contains(offers, queue) {
		return true
	}
	l := SplitQueue(queue)
	return slices.ContainsFunc(offers, func(o string) bool {
		m := SplitQueue(o)
		return m.Endpoint == l.Endpoint && (m.Model == "*" || l.Model == AnyModel)
	})
}

// queue is where the task waits. One that was submitted before tenants had queues of their own waits in everybody's.
func (r *Record) queue(id string) string {
	l := r.Lane()
	if r.Fair {
		l.Tenant = tenant.Of(id)
	}
	return QueueOf(l)
}

// horizon is what a task without a deadline is given in the order of its queue: one whose deadline is nearer goes before those
// that came up to so much earlier.
const horizon = 24 * time.Hour

// place is where the task stands in its queue: by the time it came or may go, and before that for a deadline that is near.
func (r *Record) place() time.Time {
	if d := r.Spec.Deadline; r.Fair && r.AtOnce && d != nil {
		if at := d.Add(-horizon).UTC().Truncate(time.Microsecond); at.Before(r.NotBefore) {
			return at
		}
	}
	return r.NotBefore
}
