// Package openaitest tests a node with OpenAI's own Go client, which judges for itself whether what comes is its API.
//
// That client takes 3 GB of memory and a minute to compile, so it is imported only here and in
// cmd/autoglm/internal/openaitest, and the Makefile (OFFICIAL) compiles it once: these tests run without the race
// detector. What they reach runs with it in the tests of node, node/api/openai, actors/bulk and actors/file.
package openaitest
