// Package demo has the tasks that `autoglm demo` runs, and apart from them the answers that
// they should get: nothing on the way to the model can see those. Both files are made by
// cmd/glm-worker/model/make_demo.py, from prompts that the default model was not trained on.
package demo

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Tasks is JSONL to submit as it is.
//
//go:embed tasks.jsonl
var Tasks []byte

//go:embed expected.jsonl
var expected []byte

// Task is one task with the answer that is right.
type Task struct {
	Spec     *task.Spec
	Job      string // what kind of task it is
	Expected string
}

// Load returns the tasks in order. An error means that the two files do not go together.
func Load() ([]Task, error) {
	answers := map[string]string{}
	err := eachLine(expected, func(b []byte) error {
		var a struct {
			ID       string `json:"task_id"`
			Expected string `json:"expected"`
		}
		if err := json.Unmarshal(b, &a); err != nil {
			return err
		}
		answers[a.ID] = a.Expected
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("demo: expected.jsonl: %w", err)
	}
	var all []Task
	err = eachLine(Tasks, func(b []byte) error {
		spec := new(task.Spec)
		if err := json.Unmarshal(b, spec); err != nil {
			return err
		}
		want, ok := answers[spec.ID]
		if !ok {
			return fmt.Errorf("task %q has no expected answer", spec.ID)
		}
		all = append(all, Task{Spec: spec, Job: spec.Metadata["job"], Expected: want})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("demo: tasks.jsonl: %w", err)
	}
	return all, nil
}

func eachLine(b []byte, f func([]byte) error) error {
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := f(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}
