package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

func TestDecodeSpec(t *testing.T) {
	for _, tc := range []struct {
		name, in    string
		status      int // 0: good
		key, detail string
	}{
		{"good", `{"task_id":"a","prompt":"p","priority":3,"timeout":"90s","metadata":{"k":"v"}}`, 0, "", ""},
		{"seconds", `{"prompt":"p","timeout":1.5}`, 0, "", ""},
		{"spaces around", " \t{\"prompt\":\"p\"} \r\n", 0, "", ""},
		{"unknown field", `{"prompt":"p","calback_url":"x"}`, 422, "calback_url", "is no field"},
		{"unknown nested field", `{"prompt":"p","retry":{"atempts":1}}`, 422, "atempts", "is no field"},
		{"wrong type", `{"prompt":7}`, 422, "prompt", "has a number where the API takes a string"},
		{"wrong type inside", `{"messages":[{"role":1}]}`, 422, "messages.role", "a string"},
		{"float for int", `{"prompt":"p","max_tokens":1.5}`, 422, "max_tokens", "whole number"},
		{"wrong duration", `{"prompt":"p","timeout":"soon"}`, 422, "timeout", "write it like"},
		{"wrong time", `{"prompt":"p","deadline":"soon"}`, 422, "deadline", `"soon" is no time: use one like "2026-01-31T12:00:00Z"`},
		{"no such priority", `{"prompt":"p","priority":"urgent"}`, 422, "priority", `priority is "urgent": use high, normal or low, or a number from 0 (first) to 9 (last)`},
		{"half a priority", `{"prompt":"p","priority":1.5}`, 422, "priority", "priority is 1.5: use high, normal or low"},
		{"no JSON", `hello`, 400, "", "starts with \"h\""},
		{"array", `[1]`, 400, "", "starts with \"[\""},
		{"null", `null`, 400, "", "starts with \"n\""},
		{"empty", ` `, 400, "", "no JSON object"},
		{"cut", `{"prompt":"p"`, 400, "", "ends too early"},
		{"syntax", `{"prompt":}`, 400, "", "no valid JSON at byte 11: the character '}' cannot stand there"},
		{"two", `{"prompt":"p"}{"prompt":"q"}`, 400, "", "more after"},
		{"not UTF-8", "{\"prompt\":\"\xff\"}", 400, "", "UTF-8"},
		{"deep", `{"metadata":` + strings.Repeat("[", 20000), 400, "", "depth"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec, err := decodeSpec([]byte(tc.in))
			if tc.status == 0 {
				require.NoError(t, err)
				require.Equal(t, "p", spec.Prompt)
				return
			}
			var p *wire.Problem
			require.ErrorAs(t, err, &p)
			require.Equal(t, tc.status, p.Status, p.Detail)
			require.Equal(t, tc.key, p.Key)
			require.Contains(t, p.Detail, tc.detail)
		})
	}
}

// A priority's word is a number from the first reader on, in a task and in one of a schedule.
func TestAPriorityMayBeAWord(t *testing.T) {
	spec, err := decodeSpec([]byte(`{"prompt":"p","priority":"high"}`))
	require.NoError(t, err)
	kept, err := json.Marshal(spec)
	require.NoError(t, err)
	require.JSONEq(t, `{"prompt":"p","priority":2}`, string(kept), "as older nodes read it")
	plan, err := decodePlan([]byte(`{"name":"n","cron":"@daily","task":{"prompt":"p","priority":"low"}}`))
	require.NoError(t, err)
	require.Equal(t, 8, plan.Task.PriorityOr())
	_, err = decodePlan([]byte(`{"name":"n","cron":"@daily","task":{"prompt":"p","priority":"lowest"}}`))
	require.ErrorContains(t, err, `priority is "lowest": use high, normal or low`)
}

func TestDecodeArray(t *testing.T) {
	got, err := decodeArray([]byte(`[{"prompt":"a"}, 7 ,null]`), 3)
	require.NoError(t, err)
	require.Len(t, got, 3)
	for in, detail := range map[string]string{
		`[1,2,3,4]`: "http.array_max", `[1,2`: "too early", `[1] 2`: "more after", `[1,,2]`: "at byte", "[\"\xff\"]": "UTF-8", `[`: "too early",
	} {
		_, err := decodeArray([]byte(in), 3)
		require.ErrorContains(t, err, detail, in)
	}
}

// A decoder never panics, and what it refuses it refuses with a Problem that says why.
func FuzzDecodeSpec(f *testing.F) {
	for _, s := range []string{`{"task_id":"a","prompt":"p"}`, `{"messages":[{"role":"user","content":"x"}],"steps":["y"]}`,
		`{"prompt":"p","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}`,
		`{"prompt":"p","deadline":"2026-01-01T00:00:00Z","timeout":1e3,"retry":{"attempts":3}}`, `[`, `{"a":1}`, "\xff", ``, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := decodeSpec(b)
		if err != nil {
			checkProblem(t, err)
			return
		}
		if err := spec.Validate(); err != nil {
			checkProblem(t, wire.ProblemOf(err))
			return
		}
		out, err := json.Marshal(spec) // what is accepted survives the journal
		require.NoError(t, err)
		again, err := decodeSpec(out)
		require.NoError(t, err, string(out))
		require.Equal(t, spec.Hash(), again.Hash())
	})
}

func FuzzDecodeArray(f *testing.F) {
	for _, s := range []string{`[]`, `[{"prompt":"p"},{}]`, `[null`, `[[[`, "[\"\xff\"]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if t := bytes.TrimLeft(b, " \t\r\n"); len(t) == 0 || t[0] != '[' {
			return // submitJSON takes it for an object
		}
		entries, err := decodeArray(b, 4)
		if err != nil {
			checkProblem(t, err)
			return
		}
		require.LessOrEqual(t, len(entries), 4)
		for _, e := range entries {
			if _, err := decodeSpec(e); err != nil {
				checkProblem(t, err)
			}
		}
	})
}

func checkProblem(t *testing.T, err error) {
	t.Helper()
	var p *wire.Problem
	require.ErrorAs(t, err, &p)
	require.GreaterOrEqual(t, p.Status, 400)
	require.Less(t, p.Status, 500)
	require.NotEmpty(t, p.Detail)
	require.NotEmpty(t, p.Kind)
}
