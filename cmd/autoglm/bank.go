//go:build bank

package main

import (
	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/node"
)

// With -tags bank the nodes have the example's accounts and transfers: for the chaos tests and docs/actors.md.
func init() {
	for _, k := range bank.Kinds() {
		extra = append(extra, node.WithKind(k))
	}
}
