// Package llama is the thin binding to llama.cpp: a model file becomes an engine.Backend and a vocabulary.
//
//	gguf.Check ─► Load ─► Model ─┬─► Vocab      pieces, end and banned tokens, copied once to Go
//	                             ├─► Tokenize   any goroutine
//	                             ├─► NewGrammar any goroutine ─► Matcher  one owner at a time
//	                             └─► NewContext ─► Context: Decode, Logits, Drop   one goroutine only
//
// It decides nothing: what to decode next is package engine, what to say is package chat, what a grammar should be is
// package grammar. It compiles against two packages of github.com/ollama/ollama v0.17.4, the lowest ones: the others
// need headers that Go module archives leave out. abi.h declares what is used and abi_test.go proves it.
//
// C++ under it answers a broken promise with abort, which ends the process. So everything that a file or a request could
// get wrong is checked on this side first, and the process is a child that its parent restarts.
package llama
