// Command glm-worker serves one GLM model over the OpenAI API on a unix socket, as the child of an autoglm node.
//
//	node ──starts──► glm-worker --model FILE.gguf --socket PATH
//	     ──asks────► GET /health: 503 loading … 200 ok
//	     ──sends───► POST /v1/chat/completions …
//	     ──SIGTERM─► drains: finishes what it accepted, exits 0
//	     ──dies────► the worker exits at once
//
// It is a process of its own because llama.cpp is C++: it answers a bug or a damaged model with abort, and that should
// cost one child and not the node. Its path through the code:
//
//	main ─► life ─► socket, gguf (the file), llama (the binding), chat (the template)
//	         └────► openai (HTTP) ─► grammar (JSON schemas) ─► engine (continuous batching) ─► sample, llama
//
// Routes: POST /v1/chat/completions, /v1/completions, /v1/embeddings, /tokenize; GET /v1/models, /health, /metrics.
//
// Exit codes: 0 drained; 1 failed, another start may help; 2 refused, because of a flag, the model file, or a socket that
// somebody else holds: another start would meet it again. A processor too old for the build ends it with 1 and a line
// that names the way out, before anything else runs.
//
// Equal requests get equal answers (with temperature 0 or a seed), to the last bit of the scores, whoever shares the
// batch and however much of the prompt was computed before: see build.mk for what that costs.
package main
