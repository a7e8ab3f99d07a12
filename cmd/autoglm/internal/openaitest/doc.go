// Package openaitest runs OpenAI's official clients, the one for Go and the one of npm, against a cluster of three processes.
//
// Both do the same whole batch of everything (report_test.go says what has to come of it) and go to another node with
// each step:
//
//	client ──► node-1: the file ──► node-2: the batch ──► node-3: polls ──► node-1: the output …
//	                 └──────────── one engine, one receiver of webhooks (cluster_test.go)
//
// The Go client is expensive to compile: see node/openaitest. The npm client is in npm/, with its exact version; make
// installs it. One node alone is tested in node/openaitest.
package openaitest
