package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// priorityFlag adds --priority, a word or a number. It stays nil where it is not given.
func priorityFlag(cmd *cobra.Command, into **task.Priority, about string) {
	cmd.Flags().Func("priority", "`n`, from 0 (first) to 9 (last), or high, normal or low "+about, func(s string) error {
		p, err := task.ParsePriority(s)
		if err != nil {
			return errors.New(fault.Plain(err))
		}
		*into = &p
		return nil
	})
	cli.Complete(cmd, "priority", task.PriorityWords...)
}
