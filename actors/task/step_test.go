package task

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestStepsOfBothForms: what old journals have is read and written as it was, byte for byte.
func TestStepsOfBothForms(t *testing.T) {
	old := `{"prompt":"p","steps":["a <b>","{{ no template }}"]}`
	var s Spec
	require.NoError(t, json.Unmarshal([]byte(old), &s))
	require.Equal(t, Texts("a <b>", "{{ no template }}"), s.Steps)
	require.False(t, s.NewForm())
	require.NoError(t, s.Validate())
	facts, err := EncodeFacts([]Fact{{Event: Submitted, Spec: &s}})
	require.NoError(t, err)
	require.Contains(t, string(facts), old)

	mixed := `{"prompt":"p","steps":["a",{"name":"n","prompt":"<{{ .steps.first.output }}>","history":false}]}`
	s = Spec{}
	require.NoError(t, json.Unmarshal([]byte(mixed), &s))
	require.True(t, s.NewForm())
	require.NoError(t, s.Validate())
	facts, err = EncodeFacts([]Fact{{Event: Submitted, Spec: &s}})
	require.NoError(t, err)
	require.Contains(t, string(facts), mixed)

	for in, want := range map[string]string{`{"steps":[7]}`: "a step is a string or an object", `{"steps":[{"prompt":"p","promt":"q"}]}`: "promt", `{"steps":[["a"]]}`: "a step is"} {
		require.ErrorContains(t, json.Unmarshal([]byte(in), &Spec{}), want)
	}
}

func TestStepsAreChecked(t *testing.T) {
	object := `{"type":"json_object"}`
	schema := `{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","required":["names"],"properties":{"names":{"type":"array","items":{"type":"string"}},"n":{"type":"integer"}}}}}`
	digest := func(change string) string {
		d := `{"name":"d","map":{"over":"data","split":{"by":"lines","size":2},"prompt":"{{.part}} {{.index}} {{.of}}"},"reduce":{"prompt":"{{join .parts \", \"}}"}}`
		if from, to, ok := strings.Cut(change, " -> "); ok {
			require.Contains(t, d, from)
			d = strings.Replace(d, from, to, 1)
		}
		return `{"data_url":"http://d","steps":[` + d + `]}`
	}
	of := func(prompt string) string {
		b, err := json.Marshal(prompt)
		require.NoError(t, err)
		return fmt.Sprintf(`{"prompt":"p","metadata":{"k":"v"},"steps":[{"name":"a","prompt":"x","response_format":%s},{"name":"o","prompt":"y","response_format":%s},{"name":"t","prompt":%s},{"name":"late","prompt":"z"}]}`, schema, object, b)
	}
	call := func(http string) string {
		return `{"prompt":"p","steps":[{"name":"t","http":{` + http + `}},{"name":"late","prompt":"{{ .steps.t.json.names }} {{ .steps.t.output }}"}]}`
	}
	for _, tc := range []struct{ name, in, want string }{
		{"steps alone", `{"steps":[{"prompt":"x"}]}`, ""},
		{"plain steps alone", `{"steps":["x"]}`, "prompt: is missing"},
		{"empty", `{"prompt":"p","steps":[{"name":"x"}]}`, "steps[0]: is empty"},
		{"name", `{"prompt":"p","steps":[{"name":"a-b","prompt":"x"}]}`, "steps[0].name"},
		{"name twice", `{"prompt":"p","steps":[{"name":"a","prompt":"x"},{"name":"a","prompt":"x"}]}`, "steps[1].name"},
		{"first", `{"prompt":"p","steps":[{"name":"first","prompt":"x"}]}`, "steps[0].name"},
		{"repair", `{"prompt":"p","steps":[{"prompt":"x","repair":6}]}`, "steps[0].repair"},
		{"task's repair", `{"prompt":"p","repair":-1}`, "repair: is -1"},
		{"max_tokens", `{"prompt":"p","steps":[{"prompt":"x","max_tokens":-1}]}`, "steps[0].max_tokens"},
		{"temperature", `{"prompt":"p","steps":[{"prompt":"x","temperature":3}]}`, "steps[0].temperature"},
		{"format", `{"prompt":"p","steps":[{"prompt":"x","response_format":{"type":"xml"}}]}`, "steps[0].response_format"},
		{"with request", `{"request":{"model":"m"},"steps":[{"prompt":"x"}]}`, "steps: cannot go beside request"},
		{"too large", `{"prompt":"p","steps":[{"prompt":"` + strings.Repeat("x", StepPromptMax+1) + `"}]}`, "the limit is 65536"},

		{"output", of("{{ .steps.a.output }} {{ .steps.first.output }} {{ .prompt }} {{ .metadata.k }} {{ $.steps.a.output }}"), ""},
		{"json", of(`{{ range .steps.a.json.names }}{{ upper . }}{{ end }} {{ json .steps.a.json }} {{ if gt .steps.a.json.n 3 }}many{{ end }} {{ get .steps.a.json "x" "none" }}`), ""},
		{"json nobody knows", of("{{ .steps.o.json.whatever.it.is }}"), ""},
		{"an item that may be there", of("{{ index .steps.a.json.names 7 }}"), ""},
		{"no such step", of("{{ .steps.b.output }}"), `steps[2].prompt: is no template that could be asked: it names step "b", which is not there`},
		{"a later step", of("{{ .steps.late.output }}"), `it names step "late", which comes later`},
		{"itself", of("{{ .steps.t.output }}"), `it names step "t", which comes later`},
		{"a later step by $ in a loop", of("{{ range .steps.a.json.names }}{{ $.steps.late.output }}{{ end }}"), "comes later"},
		{"by index", of(`{{ index .steps "late" "output" }}`), ""}, // found when it is asked: index allows for what is not there
		{"no json", of("{{ .steps.first.json }}"), "has no response_format"},
		{"wrong field", of("{{ .steps.a.text }}"), "use .output or .json"},
		{"not in the schema", of("{{ .steps.a.json.other }}"), "no entry for key"},
		{"no metadata", of("{{ .metadata.missing }}"), "no entry for key"},
		{"no data", of("{{ .data }}"), "it names .data, which is not there"},
		{"no part", of("{{ .part }}"), "it names .part, which is not there"},
		{"syntax", of("{{ if }}"), "line 1"},
		{"a define", of(`{{ define "x" }}{{ end }}`), "defines templates"},
		{"a define of itself", of(`{{ define "prompt" }}{{ template "prompt" . }}{{ end }}`), "is not allowed"},
		{"printf", of(`{{ printf "%1000000000d" 1 }}`), `function "printf" is not allowed`},
		{"tick", of(`{{ tick 1 }}`), `function "tick" is not allowed`},
		{"a wrong argument", of(`{{ join .prompt "," }}`), "join takes a list"},

		{"a map", digest(""), ""},
		{"over", digest(`"over":"data" -> "over":"steps"`), "steps[0].map.over"},
		{"by", digest(`"by":"lines" -> "by":"pages"`), "steps[0].map.split.by"},
		{"size", digest(`"size":2 -> "size":0`), "steps[0].map.split.size"},
		{"overlap", digest(`"size":2 -> "size":2,"overlap":2`), "steps[0].map.split.overlap"},
		{"bytes", digest(`"by":"lines","size":2 -> "by":"bytes","size":9999999`), "steps[0].map.split.size"},
		{"parts in a part", digest(`{{.part}} -> {{.parts}}`), "steps[0].map.prompt"},
		{"part in a merge", digest(`{{join .parts -> {{join .part`), "steps[0].reduce.prompt"},
		{"no reduce", `{"data_url":"http://d","steps":[{"map":{"over":"data","split":{"by":"lines","size":1},"prompt":"x"}}]}`, "needs both map and reduce"},
		{"no data", strings.Replace(digest(""), `"data_url":"http://d",`, "", 1), "steps[0].map.over"},
		{"history", digest(`"name":"d" -> "history":true`), "steps[0].history"},
		{"a model of the parts", digest(`"prompt":"{{.part}} -> "model":"small","prompt":"{{.part}}`), ""},
		{"a name of a model", `{"steps":[{"prompt":"x","model":"a\nb"}]}`, "steps[0].model"},
		{"a name of the parts' model", digest(`"prompt":"{{.part}} -> "model":"a\u0000b","prompt":"{{.part}}`), "steps[0].map.model"},

		{"http", call(`"url":"https://api.example.com/{{ .prompt }}?q={{ urlquery .steps.first.output }}"`), ""},
		{"http with all", call(`"method":"PUT","url":"http://h:8080/x","headers":{"X-Api-Version":"2"},"body":{"a":["{{ .prompt }}",1,null]},"timeout":"3s","retry_on":[404]`), ""},
		{"http's method", call(`"method":"HEAD","url":"http://h/"`), "steps[0].http.method"},
		{"http's url", call(`"url":"ftp://h/"`), "steps[0].http.url: must begin with http://"},
		{"a template as host", call(`"url":"http://{{ .prompt }}/"`), "steps[0].http.url: must begin"},
		{"a template in the host", call(`"url":"http://h{{ .prompt }}"`), "steps[0].http.url: has a template in its host"},
		{"a template as port", call(`"url":"http://h:{{ .prompt }}/"`), "steps[0].http.url: has a template in its host"},
		{"a password", call(`"url":"http://u:p@h/"`), "steps[0].http.url: has a user"},
		{"a secret", call(`"url":"http://h/","headers":{"authorization":"Bearer x"}`), "steps[0].http.headers: Authorization would be a secret"},
		{"our header", call(`"url":"http://h/","headers":{"Idempotency-Key":"x"}`), "steps[0].http.headers: Idempotency-Key is not"},
		{"two lines in a header", call(`"url":"http://h/","headers":{"X":"a\nb"}`), "steps[0].http.headers"},
		{"a header's name", call(`"url":"http://h/","headers":{"X Y":"a"}`), "steps[0].http.headers"},
		{"a body with GET", call(`"url":"http://h/","method":"GET","body":"x"`), "steps[0].http.body"},
		{"retry_on", call(`"url":"http://h/","retry_on":[200]`), "steps[0].http.retry_on"},
		{"http's template", call(`"url":"http://h/{{ .steps.late.output }}"`), `steps[0].http.url: is no template that could be asked: it names step "late", which comes later`},
		{"a body's template", call(`"url":"http://h/","body":{"deep":[{"x":"{{ .nothing }}"}]}`), "steps[0].http.body: is no template"},
		{"an unknown field", call(`"url":"http://h/","verb":"x"`), "verb"},
		{"what it gives, whatever that is", call(`"url":"http://h/"`), ""},
		{"what it does not give", strings.Replace(strings.Replace(call(`"url":"http://h/"`), `"name":"t",`, `"name":"t","response_format":`+schema+`,`, 1), ".json.names", ".json.other", 1), "no entry for key"},
		{"tool and prompt", `{"steps":[{"prompt":"x","http":{"url":"http://h/"}}]}`, "steps[0]: is more than one of"},
		{"two tools", `{"steps":[{"wasm":{"module":"m"},"http":{"url":"http://h/"}}]}`, "steps[0]: is more than one of"},
		{"tool and map", digest(`"name":"d" -> "http":{"url":"http://h/"}`), "steps[0]: is more than one of"},
		{"a tool with a model", `{"steps":[{"model":"x","http":{"url":"http://h/"}}]}`, "steps[0]: is a tool"},
		{"a tool that is repaired", `{"steps":[{"repair":1,"http":{"url":"http://h/"}}]}`, "steps[0]: is a tool"},

		{"wasm", `{"steps":[{"wasm":{"module":"score-2.1","function":"run","timeout":"2s","memory_mb":64,"input":{"x":"{{ .metadata }}"}}}]}`, ""},
		{"wasm by its hash", `{"steps":[{"wasm":{"module":"sha256:` + strings.Repeat("0a", 32) + `"}}]}`, ""},
		{"half a hash", `{"steps":[{"wasm":{"module":"sha256:0a"}}]}`, "steps[0].wasm.module"},
		{"a path", `{"steps":[{"wasm":{"module":"../score"}}]}`, "steps[0].wasm.module"},
		{"a hidden file", `{"steps":[{"wasm":{"module":".score"}}]}`, "steps[0].wasm.module"},
		{"no module", `{"steps":[{"wasm":{}}]}`, "steps[0].wasm.module"},
		{"wasm's function", `{"steps":[{"wasm":{"module":"m","function":"a b"}}]}`, "steps[0].wasm.function"},
		{"wasm's memory", `{"steps":[{"wasm":{"module":"m","memory_mb":2000}}]}`, "steps[0].wasm.memory_mb"},
		{"wasm's template", `{"steps":[{"wasm":{"module":"m","input":"{{ .steps.x.json }}"}}]}`, "steps[0].wasm.input"},

		{"a prompt, too", digest(`"name":"d" -> "prompt":"x"`), "exclude each other"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s Spec
			err := json.Unmarshal([]byte(tc.in), &s)
			if err == nil {
				err = s.Validate()
			} else if tc.want != "verb" {
				require.NoError(t, err, tc.in)
			} else {
				require.ErrorContains(t, err, tc.want)
				return
			}
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
			require.Contains(t, []fault.Kind{fault.Invalid, fault.TooLarge}, fault.KindOf(err))
		})
	}
}

// TestAllThatIsLongOfAToolCounts for quotas and for the size of a task.
func TestAllThatIsLongOfAToolCounts(t *testing.T) {
	step := TaskStep{HTTP: &HTTPTool{URL: "http://h/", Headers: map[string]string{"X-Y": "four", "Z": "12"}, Body: json.RawMessage(`"b"`)}}
	require.Equal(t, len("http://h/")+len("X-Y")+len("four")+len("Z")+len("12")+len(`"b"`), step.size())
	step = TaskStep{Wasm: &WasmTool{Module: "mod", Function: "fun", Input: json.RawMessage(`"in"`)}}
	require.Equal(t, len("mod")+len("fun")+len(`"in"`), step.size())

	h := map[string]string{}
	for i := range ToolHeadersMax {
		h[fmt.Sprint("X-", i)] = strings.Repeat("v", HeaderValueMax)
	}
	s := &Spec{Steps: slices.Repeat(Steps{{HTTP: &HTTPTool{URL: "http://h/", Headers: h}}}, StepsMax)}
	require.Equal(t, fault.TooLarge, fault.KindOf(s.Validate()), "2 MiB of headers")
}

// TestTemplatesHaveAnEnd: none of these may take long, or much memory.
func TestTemplatesHaveAnEnd(t *testing.T) {
	big := strings.Repeat("<\\\"", RenderMax/3)
	root := map[string]any{"steps": map[string]any{}, "metadata": map[string]any{}, "prompt": "p", "data": big, "parts": []string{big, big, big}}
	for _, tc := range []struct {
		text string
		want error
	}{
		{"{{ range 2000000000 }}{{ end }}", errWork},
		{"{{ range 100000 }}{{ range 100000 }}{{ if eq 1 2 }}x{{ end }}{{ end }}{{ end }}", errWork},
		{"{{ range 100000 }}{{ len (lower $.data) }}{{ end }}", errWork},
		{"{{ range 100000 }}{{ continue }}{{ end }}", nil},
		{"{{ .data }}{{ .data }}", errLong},
		{"{{ join .parts .data }}", errLong},
		{"{{ json .data }}", errLong},
		{"{{ $x := json .prompt }}{{ range 100000 }}{{ $x = json $x }}{{ end }}", errLong},
		{"{{ len (lines .data) }}", nil},
		{"{{ truncate 2 .data }}", nil},
	} {
		f, err := parseForm(tc.text, "steps", "metadata", "prompt", "data", "parts")
		require.NoError(t, err)
		out, err := f.render(root)
		if tc.want != nil {
			require.ErrorIs(t, err, tc.want, tc.text)
			continue
		}
		require.NoError(t, err, tc.text)
		require.LessOrEqual(t, len(out), RenderMax)
	}
}

// TestManySmallTemplatesAreALargeOne: what one template may use, all strings of a tool's body may use together, and all templates of a task while it is checked.
func TestManySmallTemplatesAreALargeOne(t *testing.T) {
	array := func(n int, text string) json.RawMessage {
		b, err := json.Marshal(slices.Repeat([]string{text}, n))
		require.NoError(t, err)
		return b
	}
	spin, big := "{{ range 260000 }}{{ end }}", strings.Repeat("x", RenderMax*9/10)
	post := func(body json.RawMessage) TaskStep { return TaskStep{HTTP: &HTTPTool{URL: "http://h/", Body: body}} }
	for name, tc := range map[string]struct {
		spec *Spec
		want string
	}{
		"work of one body":          {&Spec{Prompt: "p", Steps: Steps{post(array(80, spin))}}, errWork.Error()},
		"work of one input":         {&Spec{Prompt: "p", Steps: Steps{{Wasm: &WasmTool{Module: "m", Input: array(80, spin)}}}}, errWork.Error()},
		"work of many steps":        {&Spec{Prompt: "p", Steps: slices.Repeat(Steps{{Prompt: spin + "x"}}, 60)}, errWork.Error()},
		"bytes of one body":         {&Spec{Prompt: big, Steps: Steps{post(array(200, "{{ .prompt }}"))}}, errLong.Error()},
		"strings of one body":       {&Spec{Prompt: "p", Steps: Steps{post(array(ToolTextsMax+1, "{{ .prompt }}"))}}, "steps[0].http.body: has 257 strings with a template, the limit is 256"},
		"strings of one input":      {&Spec{Prompt: "p", Steps: Steps{{Wasm: &WasmTool{Module: "m", Input: array(300, "{{ .prompt }}")}}}}, "steps[0].wasm.input: has 300 strings"},
		"as many as there may be":   {&Spec{Prompt: "p", Steps: Steps{post(array(ToolTextsMax, "{{ .prompt }}"))}}, ""},
		"many that are as they are": {&Spec{Prompt: "p", Steps: Steps{post(array(100_000, "a"))}}, ""},
		"bytes of each step":        {&Spec{Prompt: big, Steps: slices.Repeat(Steps{{Prompt: "{{ .prompt }}"}, post(array(1, "{{ .prompt }}"))}, 5)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.spec.Validate()
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}

	call := func(body json.RawMessage, said string) ([]byte, error) {
		s := &Spec{Steps: Steps{{Name: "a", HTTP: &HTTPTool{URL: "http://h/"}}, post(body)}}
		r := Record{Spec: s, Answers: []Answer{{Text: said}}}
		a, err := r.Ask(nil)
		if err != nil {
			return nil, err
		}
		return a.Tool.Input, nil
	}
	_, err := call(array(80, "{{ .steps.a.output }}"), big)
	require.ErrorIs(t, err, errLong)
	_, err = call(array(80, spin), "")
	require.ErrorIs(t, err, errWork)
	out, err := call(array(80, "{{ .steps.a.output }}{{ len .steps.a.json }}"), "[1,2]")
	require.NoError(t, err)
	require.JSONEq(t, string(array(80, "[1,2]2")), string(out))
	out, err = call(json.RawMessage(`"{{ .steps.a.output }}"`), strings.Repeat("x", RenderMax))
	require.NoError(t, err)
	require.Len(t, out, RenderMax)
}

func TestTemplatesRender(t *testing.T) {
	v, err := jsonValue(`{"b":[1,2.5,"x"],"a":{"z":null,"n":12345678901234567890}}`)
	require.NoError(t, err)
	root := map[string]any{"steps": map[string]any{"s": map[string]any{"json": v, "output": " Ä b\nc\n"}}, "metadata": map[string]any{"m": "v"}, "prompt": "p"}
	for text, want := range map[string]string{
		`{{ json .steps.s.json }}`:                                                     `{"a":{"n":12345678901234567000,"z":null},"b":[1,2.5,"x"]}`,
		`{{ range $k, $v := .steps.s.json }}{{ $k }} {{ end }}`:                        "a b ",
		`{{ if eq (index .steps.s.json.b 0) 1 }}one{{ end }}`:                          "one",
		`{{ join .steps.s.json.b "-" }}`:                                               "1-2.5-x",
		`{{ urlquery "a b/?&+é" }} {{ urlquery ".." }} {{ urlquery "a.b" }}`:           "a%20b%2F%3F%26%2B%C3%A9 %2E%2E a.b",
		`{{ upper (trim .steps.s.output) }}|{{ truncate 2 .steps.s.output }}`:          "Ä B\nC| Ä",
		`{{ range lines .steps.s.output }}[{{ . }}]{{ end }}`:                          "[ Ä b][c]",
		`{{ get .steps.s.json "no" "none" }}{{ get .metadata "m" "no" }}`:              "nonev",
		`{{ with get .steps.s.json.a "z" "" }}some{{ else }}nothing{{ end }}`:          "nothing",
		`{{ range $i, $x := .steps.s.json.b }}{{ if $i }}, {{ end }}{{ $x }}{{ end }}`: "1, 2.5, x",
	} {
		for range 3 { // the same each time
			f, err := parseForm(text, "steps", "metadata", "prompt")
			require.NoError(t, err)
			got, err := f.render(root)
			require.NoError(t, err, text)
			require.Equal(t, want, got, text)
		}
	}
}

// FuzzTemplate: whatever is submitted either is refused or renders the same twice, within its limits.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{ .steps.first.output }}", "{{ range 9 }}x{{ else }}{{ break }}{{ end }}", "{{ with $x := .prompt }}{{ $x }}{{ end }}", "{{ (index .metadata).k }}", "{{/* c */}}{{ json . }}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &Spec{Prompt: "p", Steps: Steps{{Prompt: text}}}
		if s.Validate() != nil {
			return
		}
		r := &Record{Spec: s, Answers: []Answer{{Text: "a"}}}
		one, err := r.Ask(nil)
		two, again := r.Ask(nil)
		require.Equal(t, err == nil, again == nil)
		require.Equal(t, one.Messages, two.Messages)
	})
}
