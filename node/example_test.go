package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/node"
	"github.com/open-autoglm/autoglm/node/api/actorclient"
)

// A kind of one's own lives in a node, is messaged from outside, and is there again after its node was lost. On a cluster the
// client gets the addresses of several nodes, and does not notice the loss of one.
func ExampleWithKind() {
	dir, err := os.MkdirTemp("", "bank")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	start := func() (*node.Node, *actorclient.Client) {
		cfg := node.Default()
		cfg.DataDir, cfg.Shards, cfg.HTTP.Listen = dir, 4, "127.0.0.1:0"
		cfg.Engines = []node.EngineConfig{{URL: node.EngineEcho}} // no model: this node only runs the bank
		var opts []node.Option
		for _, k := range bank.Kinds() {
			opts = append(opts, node.WithKind(k))
		}
		n, err := node.New(cfg, slog.New(slog.DiscardHandler), opts...)
		if err == nil {
			err = n.Start(ctx)
		}
		if err != nil {
			panic(err)
		}
		c, err := actorclient.New([]string{"http://" + n.HTTPAddr()})
		if err != nil {
			panic(err)
		}
		return n, c
	}

	n, c := start()
	for _, who := range []string{"alice", "bob"} {
		_, err = actorclient.Ask[bank.Balance](ctx, c.Actor("account", who), "Open", bank.Open{})
		fmt.Println(who, err)
	}
	alice := c.Actor("account", "alice")
	for range 2 { // the same request twice counts once
		ans, err := alice.Ask(ctx, actorclient.Message{Type: "Deposit", Body: []byte(`{"cents":1000}`), RequestID: "salary-may"})
		fmt.Printf("%s version %d %v\n", ans.Body, ans.Version, err)
	}
	transfer := c.Actor("transfer", "rent-may")
	_, err = actorclient.Ask[bank.Status](ctx, transfer, "Start", bank.Start{From: "alice", To: "bob", Cents: 300})
	fmt.Println("started", err)
	for state, err := range transfer.Watch(ctx, 0) { // until it is over
		var s bank.Status
		if err == nil {
			err = state.Decode(&s)
		}
		if err != nil || s.Phase.Final() {
			fmt.Println(s.Phase, err)
			break
		}
	}
	c.Close()
	if err := n.Stop(ctx); err != nil {
		fmt.Println(err)
	}

	n, c = start() // another process would find the same
	for _, who := range []string{"alice", "bob"} {
		b, err := actorclient.Ask[bank.Balance](ctx, c.Actor("account", who), "Get", bank.Get{})
		fmt.Println(who, b.Cents, err)
	}
	_, err = actorclient.Ask[bank.Balance](ctx, c.Actor("account", "bob"), "Withdraw", bank.Withdraw{Cents: 301})
	fmt.Println(err != nil)
	c.Close()
	if err := n.Stop(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// alice <nil>
	// bob <nil>
	// {"open":true,"cents":1000,"free":1000} version 2 <nil>
	// {"open":true,"cents":1000,"free":1000} version 2 <nil>
	// started <nil>
	// done <nil>
	// alice 700 <nil>
	// bob 300 <nil>
	// true
}
