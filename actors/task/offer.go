package task

import (
	"slices"
	"strings"
)

// A queue is a model's, and an endpoint's other than chat: no engine must be given what it does not serve. Chat has the
// model's plain name, as all tasks had before there were others.
const endpointMark = "\x1f" // no model's name has it, see checkModelName

// QueueMax bounds a queue's name, in bytes.
const QueueMax = IDMax + len(endpointMark) + len(EndpointChat)

// QueueOf names the queue of a model at an endpoint.
func QueueOf(model, endpoint string) string {
	if endpoint == EndpointChat {
		return model
	}
	return model + endpointMark + endpoint
}

// SplitQueue is the inverse of QueueOf.
func SplitQueue(queue string) (model, endpoint string) {
	if model, endpoint, ok := strings.Cut(queue, endpointMark); ok {
		return model, endpoint
	}
	return queue, EndpointChat
}

// Offers returns the queues that an engine with these models and endpoints serves; "*" stands for all models.
func Offers(models, endpoints []string) []string {
	all := make([]string, 0, len(models)*len(endpoints))
	for _, e := range endpoints {
		for _, m := range models {
			all = append(all, QueueOf(m, e))
		}
	}
	return all
}

// Serves tells whether an engine that made these offers serves a queue. The queue AnyModel is everybody's who serves its
// endpoint.
func Serves(offers []string, queue string) bool {
	if slices.Contains(offers, queue) {
		return true
	}
	model, endpoint := SplitQueue(queue)
	return slices.ContainsFunc(offers, func(o string) bool {
		m, e := SplitQueue(o)
		return e == endpoint && (m == "*" || model == AnyModel)
	})
}

// queue is where the task waits.
func (r *Record) queue() string { return QueueOf(r.Model, r.Spec.EndpointOr()) }
