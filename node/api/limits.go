package api

import (
	"errors"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits bounds what clients can make the server hold. Each is named in the refusal that
// it causes. DefaultLimits has the values used when nothing is configured.
type Limits struct {
	RequestsMax    int           `koanf:"requests_max" doc:"Requests served at once, streams among them; more get 429."`
	StreamsMax     int           `koanf:"streams_max" doc:"Long requests at once (bulk submits, results, events, waits); more get 429."`
	BodyMax        int64         `koanf:"body_max" doc:"Bytes of one JSON body; a stream has no limit."`
	ArrayMax       int           `koanf:"array_max" doc:"Tasks in one JSON array; a stream has no limit."`
	LineMax        int           `koanf:"line_max" doc:"Bytes of one line of a stream; a longer one is refused, the others are kept."`
	ChunkLines     int           `koanf:"chunk_lines" doc:"Lines of a stream made durable together."`
	ChunkBytes     int           `koanf:"chunk_bytes" doc:"Bytes of a stream made durable together; one line may be longer."`
	ChunkAge       time.Duration `koanf:"chunk_age" doc:"Longest wait for a chunk to fill."`
	ChunksInFlight int           `koanf:"chunks_in_flight" doc:"Chunks of one stream being made durable at once."`
	StreamRetry    time.Duration `koanf:"stream_retry" doc:"How long a stream waits for a busy node before its lines are refused."`
	ReadTimeout    time.Duration `koanf:"read_timeout" doc:"Time to send the headers, and again the body, of a request that is no stream."`
	WriteTimeout   time.Duration `koanf:"write_timeout" doc:"Time for a client to take one piece of an answer."`
	StreamIdle     time.Duration `koanf:"stream_idle" doc:"A bulk submit that sends nothing for so long is ended."`
	WaitMax        time.Duration `koanf:"wait_max" doc:"Longest ?wait= of a long poll."`
	StopGrace      time.Duration `koanf:"stop_grace" doc:"A node that stops says so and goes on serving for so long, so that clients send nothing to a port that closes; shorter where nobody is connected."`
	Heartbeat      time.Duration `koanf:"heartbeat" doc:"A followed stream says something at least this often."`
	ResultsPoll    time.Duration `koanf:"results_poll" doc:"How often followed results look for new ones."`
}

// DefaultLimits fits a node with a few GB of memory. The worst that streams can hold is
// about StreamsMax × (ChunksInFlight + 2) × (ChunkBytes + LineMax).
func DefaultLimits() Limits {
	return Limits{
		RequestsMax: 4096, StreamsMax: 1024,
		BodyMax: 32 << 20, ArrayMax: 10_000,
		LineMax: 8 << 20, ChunkLines: 512, ChunkBytes: 4 << 20, ChunkAge: 20 * time.Millisecond, ChunksInFlight: 4,
		StreamRetry: 30 * time.Second,
		ReadTimeout: time.Minute, WriteTimeout: time.Minute, StreamIdle: 10 * time.Minute,
		WaitMax: 5 * time.Minute, StopGrace: time.Second, Heartbeat: 15 * time.Second, ResultsPoll: 200 * time.Millisecond,
	}
}

// Validate names the first limit that cannot work.
func (l Limits) Validate() error {
	var errs []error
	for _, v := range []struct {
		name     string
		val, min int64
	}{
		{"requests_max", int64(l.RequestsMax), 1}, {"streams_max", int64(l.StreamsMax), 1},
		{"body_max", l.BodyMax, 1 << 10}, {"array_max", int64(l.ArrayMax), 1}, {"line_max", int64(l.LineMax), 1 << 10},
		{"chunk_lines", int64(l.ChunkLines), 1}, {"chunk_bytes", int64(l.ChunkBytes), 1 << 10},
		{"chunk_age", int64(l.ChunkAge), 0}, {"chunks_in_flight", int64(l.ChunksInFlight), 1},
		{"stream_retry", int64(l.StreamRetry), 0}, {"read_timeout", int64(l.ReadTimeout), int64(time.Second)},
		{"write_timeout", int64(l.WriteTimeout), int64(time.Second)}, {"stream_idle", int64(l.StreamIdle), int64(time.Second)},
		{"wait_max", int64(l.WaitMax), 0}, {"stop_grace", int64(l.StopGrace), 0}, {"heartbeat", int64(l.Heartbeat), int64(10 * time.Millisecond)},
		{"results_poll", int64(l.ResultsPoll), int64(time.Millisecond)},
	} {
		if v.val < v.min {
			errs = append(errs, fault.New(fault.Invalid, "config", "http."+v.name, "is %d", v.val).WithRemedy("use %d or more", v.min))
		}
	}
	return errors.Join(errs...)
}
