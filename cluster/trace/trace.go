package trace

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Header is the name under which a Parent travels in HTTP.
const Header = "Traceparent"

// Parent is a traceparent of version 00 that is valid, or "": no trace.
type Parent string

const idAt, idEnd = 3, 3 + 32 // of the trace id in it

var format propagation.TraceContext

// Parse reads a header's value. What is not valid is no trace, as the standard has it. A later version is read as far as
// version 00 goes.
func Parse(s string) Parent {
	ctx := format.Extract(context.Background(), propagation.MapCarrier{"traceparent": s})
	return parentOf(trace.SpanContextFromContext(ctx))
}

// New begins a trace. It is marked as sampled: nobody has decided against it, and an engine that records by this mark is to do so.
func New() Parent {
	var c trace.SpanContextConfig
	rand.Read(c.TraceID[:])
	rand.Read(c.SpanID[:])
	c.TraceFlags = trace.FlagsSampled
	return parentOf(trace.NewSpanContext(c))
}

func parentOf(c trace.SpanContext) Parent {
	if !c.IsValid() {
		return ""
	}
	out := propagation.MapCarrier{}
	format.Inject(trace.ContextWithSpanContext(context.Background(), c), out)
	return Parent(out["traceparent"])
}

// ID returns the trace's id, 32 hex digits, or "".
func (p Parent) ID() string {
	if len(p) < idEnd {
		return ""
	}
	return string(p[idAt:idEnd])
}

type key struct{}

// With puts a trace into a context; no trace leaves it as it is.
func With(ctx context.Context, p Parent) context.Context {
	if p == "" {
		return ctx
	}
	return context.WithValue(ctx, key{}, p)
}

// From returns the trace of a context, or none.
func From(ctx context.Context) Parent {
	p, _ := ctx.Value(key{}).(Parent)
	return p
}
