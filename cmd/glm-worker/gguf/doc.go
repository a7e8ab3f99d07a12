// Package gguf looks at a model file before llama.cpp does.
//
//	magic, version │ key-values │ tensor infos │ padding │ tensor data
//	└──────────────── read and bounded here ──┘           └ only its end is computed, and compared with the file's size
//
// llama.cpp maps the file and trusts it: a file cut short by a broken download ends in a signal or an abort, which tells
// nobody what to do. Here it ends in an error that does.
package gguf
