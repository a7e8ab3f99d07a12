package wire

import (
	"time"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
)

// Sink is a sink as it was created, and how far it is.
type Sink struct {
	sink.Definition

	Tenant      string        `json:"tenant" doc:"Whose results it takes."`
	Status      string        `json:"status" enum:"running,failing,paused" doc:"failing: what is there to write cannot be written, and is tried again."`
	CreatedAt   time.Time     `json:"created_at"`
	Delivered   uint64        `json:"delivered" doc:"Results at the destination."`
	Batches     uint64        `json:"batches" doc:"Objects, or transactions."`
	Newest      *time.Time    `json:"newest,omitempty" doc:"When the newest of them ended."`
	DeliveredAt *time.Time    `json:"delivered_at,omitempty" doc:"When that was delivered."`
	Waiting     *time.Time    `json:"waiting,omitempty" doc:"When the oldest result ended that is not delivered; absent when all are."`
	Lag         float64       `json:"lag_seconds" doc:"How long it has been waiting, 0 when all are delivered."`
	Error       *task.Failure `json:"error,omitempty" doc:"Of the newest try, while it fails."`
	FailingAt   *time.Time    `json:"failing_since,omitempty"`
	Tries       int           `json:"tries,omitempty" doc:"Failed since."`
	Object      string        `json:"object,omitempty" doc:"Name of the newest object, without the ending."`
}

// Sinks is all sinks, by name.
type Sinks struct {
	Sinks []Sink `json:"sinks" nullable:"false"`
}

// SinkOf shows a tenant's sink. waiting is when the oldest result ended that it does not have.
func SinkOf(whose string, s *sink.State, waiting, now time.Time) Sink {
	v := Sink{Definition: *s.Def, Tenant: whose, Status: s.Phase.String(), CreatedAt: s.CreatedAt, Delivered: s.Count, Batches: s.Seq, Newest: moment(s.Newest),
		DeliveredAt: moment(s.DeliveredAt), Waiting: moment(waiting), Error: s.Error, FailingAt: moment(s.Since), Tries: s.Tries}
	if s.Error != nil {
		v.Status = "failing"
	}
	if !waiting.IsZero() {
		v.Lag = max(0, now.Sub(waiting).Seconds())
	}
	if s.Seq > 0 && s.Def.Format != "" {
		v.Object = s.Object(s.Seq)
	}
	return v
}
