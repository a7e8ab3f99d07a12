// Command glm-worker serves one GLM model over the OpenAI API on a unix socket, as the child of an autoglm node.
//
//	node ──starts──► glm-worker --model FILE.gguf --socket PATH
//	     ──asks────► GET /health: 503 loading … 200 ok
//	     ──sends───► POST /v1/chat/completions …
//	     ──SIGTERM─► drains: finishes what it accepted, exits 0
//	     ──dies────► the worker exits at once
//
// It is a process of its own because llama.cpp is C++: it answers a bug or a damaged model with abort, and that should
// cost one child and not the node. See the packages: llama (the binding), engine (continuous batching), chat (the
// template), grammar (JSON schemas), openai (HTTP), gguf (the file), cpulevel (the processor).
package main
