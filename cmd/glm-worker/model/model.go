// Package model carries the default model: a tiny GLM that this project trained on made-up
// data-cleaning tasks, so that a fresh machine has something real to run. It is not one of
// Z.ai's models; the folder has its generator and its training.
package model

import _ "embed"

// Name is the id under which the default model is served.
const Name = "tinyglm"

// GGUF is the model file.
//
//go:embed tinyglm.gguf
var GGUF []byte
