package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// What is wrong with a file of quotas is told by line and field, without a word of Go; nothing is rounded, and no document goes before another.
func TestQuotaFiles(t *testing.T) {
	for file, want := range map[string]string{
		"tenant: a\nhard: {running: 1.5}":                          "document 1: line 2: hard.running is 1.5: use a whole number",
		"tenant: a\nhard:\n  running: many":                        "document 1: line 3: hard.running is many: use a whole number",
		"tenant: a\nhard: {queued: 1e400}":                         "document 1: line 2: hard.queued is 1e400: use a whole number",
		"tenant: a\nhard: {runing: 1}":                             "document 1: line 2: hard.runing is no field of a quota: use one of running, tokens_per_minute, requests_per_minute, queued, bytes",
		"tenant: a\nweight: heavy":                                 "document 1: line 2: weight is heavy: use a number",
		"tenant: a\nhard: 5":                                       "document 1: line 2: hard is 5: use fields, each as NAME: VALUE",
		"tenant: a\nclasses: {running: 1}":                         "document 1: line 2: classes is something else: use a list, each entry on a line of its own that begins with -",
		"tenant: a\nclasses:\n- {priorities: [1]}":                 "document 1: line 3: classes[0].priorities is something else: use a text",
		"tenant: a\nhard: {running: 1, running: 2}":                "document 1: line 2: hard.running is there twice",
		"tenant: a\n---\ntenant: a\nweight: 2":                     "document 2: tenant a has another document before: put both into one",
		"tenant: A b":                                              `document 1: tenant is "A b": use 1 to 40 of a-z, 0-9 and -, with a letter or digit at both ends`,
		"tenant: a\nhard: {running: -1}":                           "document 1: hard.running is -1: use 0 (no limit) to 1000000000",
		"tenant:":                                                  "document 1: line 1: tenant is empty: use a text",
		"just text":                                                "document 1: line 1: the document is just text: use fields, each as NAME: VALUE",
		"tenant: a\nhard: {running: 1":                             "document 1 is no YAML: line 1: did not find expected ',' or '}'",
		"tenant: a\n---\ntenant: b\nover: postpone":                `document 2: over is "postpone": use queue or reject`,
		"tenant: a\nclasses: [{priorities: low}, {priorities: 8}]": "document 1: classes[1].priorities is 8, as another's: put both limits into one",
		"tenant: a\nclasses: [{priorities: 3-1}]":                  `document 1: classes[0].priorities is "3-1": write a priority of 0 to 9 or high, normal or low, or two like 0-2`,
	} {
		_, err := parseQuotas([]byte(file))
		require.Error(t, err, file)
		require.Equal(t, want, fault.Shown(err), file)
	}
	specs, err := parseQuotas([]byte("tenant: a\nclasses: [{priorities: high-normal, running: 2}, {priorities: low, running: 1}, {priorities: 0-low, running: 3}]"))
	require.NoError(t, err)
	require.Equal(t, "priority 2-5: running 2, priority 8: running 1, priority 0-8: running 3", specs[0].String())
	specs, err = parseQuotas([]byte("tenant: a\nweight: 2\nhard: &h {running: 4}\nclasses:\n- {priorities: 9, running: 1}\n---\ntenant: b\nweight: 0.5"))
	require.NoError(t, err)
	require.Equal(t, "weight 2, running 4, priority 9: running 1", specs[0].String())
	require.Equal(t, "weight 0.5", specs[1].String())
}
