// Package client talks to a node's HTTP API.
//
//	c, err := client.New("http://127.0.0.1:8080")
//	sub, err := c.Submit(ctx, &task.Spec{Prompt: "..."})
//	t, err := c.Wait(ctx, sub.ID, time.Minute)
//
// What it decides: every submit carries an id, made here when the caller gave none, so that
// a submit whose answer got lost is sent again without making a second task. Calls are
// repeated while the node is busy or away, for as long as WithRetry says; a client of several
// nodes asks the next one first. All calls but Backup are safe to repeat: they read, or they
// name what they want. Streams go on
// after a broken connection: a submit with the lines that were not answered, results from
// the last cursor, events from the last version.
//
// Errors are faults (package persistence/fault); errors.As finds the *wire.Problem of a
// refusal.
package client
