// Package engine keeps one model busy with many answers at once: continuous batching.
//
//	Submit ─► queue (bounded) ─► slot ─┐                       ┌─► Stream ─► caller
//	   └ full: ErrQueueFull            ▼                       │
//	             ┌────────► plan ─► Backend.Decode ─► pick ────┤ end, stop text or limit: slot is free again
//	             └─────────────────────────────────────────────┘ else: one more token to decode
//
// Each round every running answer gets one token and the rest of the batch is filled with pieces of new prompts, oldest
// first. So a long prompt delays nobody for more than a round, and a free slot is taken in the next one.
//
// Deciding is pure: plan.go chooses the batch, text.go turns tokens into text, package sample picks. The one goroutine
// that carries it out (loop.go) is locked to its thread and alone touches the Backend, which is llama.cpp or, in tests,
// a fake. It never waits for a caller: a Stream holds the whole answer, whose length is bounded.
//
// Left to others: what a prompt looks like (chat), what a grammar is (grammar), HTTP (openai).
package engine
