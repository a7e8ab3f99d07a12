package grammar

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

func validator(t testing.TB, schema string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("mem:///schema", doc))
	s, err := c.Compile("mem:///schema")
	require.NoError(t, err)
	return s
}

func check(t testing.TB, s *jsonschema.Schema, text string) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// schemas are read from testdata so that package llama can try the same ones on the real parser.
func schemas(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		var cases map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(text, &cases), f)
		for name, schema := range cases {
			out[filepath.Base(f)+": "+name] = string(schema)
		}
	}
	return out
}

// Whatever the grammar allows must be valid: that is the promise to whoever reads the answers.
func TestWhatTheGrammarAllowsIsValid(t *testing.T) {
	for name, schema := range schemas(t) {
		t.Run(name, func(t *testing.T) {
			text, err := FromSchema([]byte(schema))
			require.NoError(t, err)
			g, valid := parseGBNF(t, text), validator(t, schema)
			random := rand.New(rand.NewPCG(1, uint64(len(name))))
			for i := range 100 {
				answer := g.generate(random)
				require.NoError(t, check(t, valid, answer), "%s\n%s", answer, text)
				if i < 5 { // slow
					require.True(t, g.accepts(answer), answer)
				}
			}
		})
	}
}

func TestAnyObject(t *testing.T) {
	g := parseGBNF(t, AnyObject())
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var v map[string]any
		answer := g.generate(random)
		require.NoError(t, json.Unmarshal([]byte(answer), &v), answer)
	}
	require.True(t, g.accepts(`{"a": [1, -2.5e3, {"b": null}], "c": "\u00e4\n"}`))
	require.False(t, g.accepts(`[1]`))
	require.False(t, g.accepts(`{"a":1,}`))
	require.False(t, g.accepts(`{"a":"`+"\n"+`"}`))
}

// The grammar must not refuse what people expect of a schema.
func TestAccepts(t *testing.T) {
	for _, c := range []struct{ schema, yes, no string }{
		{`{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}},"required":["a","b"],"additionalProperties":false}`,
			`{"b":1,"a":"x"}|{"b": 1, "a": ""}|{` + "\n  " + `"b": -12,` + "\n  " + `"a": "ä\"\\"` + "\n" + `}`, `{"a":"x","b":1}|{"b":1}|{}|{"b":01,"a":""}|{"b":1,"a":"x","c":1}`},
		{`{"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"]}`,
			`{"b":2}|{"a":1,"b":2}|{"b":2,"c":3}|{"a":1,"b":2,"c":3}`, `{}|{"a":1}|{"a":1,"c":3}|{,"b":2}|{"b":2,}`},
		{`{"type":"object","properties":{"a":{"const":1},"b":{"const":2}}}`, `{}|{ }|{"a":1}|{"b":2}|{"a":1,"b":2}`, `{"b":2,"a":1}|{"a":1,}`},
		{`{"type":"object","properties":{"ab":true},"additionalProperties":{"type":"null"}}`,
			`{}|{"ab":[1]}|{"a":null}|{"abc":null}|{"ab":1,"b":null,"c":null}|{"":null}`, `{"a":1}|{"b":null,"ab":1}`},
		{`{"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":3}`, `[true]|[true, false]|[true,true,true]`, `[]|[true,true,true,true]|[null]`},
		{`{"type":"array","maxItems":0}`, `[]|[ ]`, `[1]`},
		{`{"enum":["a","b\"",1,null,{"x":[1]}]}`, `"a"|"b\""|1|null|{"x":[1]}`, `"c"|2`},
		{`{"type":["string","null"],"maxLength":2}`, `null|""|"ab"|"\n\u0041"`, `"abc"|1`},
		{`{"type":"string","pattern":"^[A-Z]{2}-\\d+$"}`, `"AB-1"|"AB-123"`, `"ab-1"|"AB-"|"AB-1x"`},
		{`{"type":"string","pattern":"b+"}`, `"b"|"abbc"`, `"ac"|""`},
		{`{"type":"string","pattern":"^(a|b\"c)$|^x"}`, `"a"|"b\"c"|"xyz"`, `"ab"|"c"`},
		{`{"type":"string","pattern":"^((((a?b?)?c?)?d?)?e?)?$"}`, `""|"abcde"|"e"|"be"`, `"ba"`},
		{`{"type":"string","format":"date"}`, `"2024-02-29"|"2000-02-29"|"1999-12-31"|"0001-01-01"`, `"1900-02-29"|"2023-02-29"|"2024-13-01"|"2024-04-31"|"2024-1-1"`},
		{`{"type":"string","format":"date-time"}`, `"2024-02-29T23:59:59Z"|"2024-02-28T00:00:00.5+02:00"`, `"2024-02-29"|"2024-02-29T24:00:00Z"`},
		{`{"type":"string","format":"uuid"}`, `"123e4567-e89b-12d3-a456-426614174000"`, `"123e4567"`},
		{`{"type":"integer","minimum":0}`, `0|7|1234567`, `-1|01|1.5`},
		{`{"type":"integer","minimum":-5,"maximum":123}`, `-5|-1|0|9|10|99|100|123`, `-6|124|200|1000`},
		{`{"type":"integer","exclusiveMinimum":9,"exclusiveMaximum":12.5}`, `10|12`, `9|13`},
		{`{"type":"number","minimum":0,"maximum":1}`, `0|1|0.5|0.000123`, `-0.1|1.1|2`},
		{`{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":10}`, `0.5|9.99|3`, `0|0.0|10|10.5|-1`},
		{`{"type":"number","minimum":-2,"maximum":-1}`, `-1|-2|-1.5`, `0|-2.5|-0.5|1`},
		{`{"type":"number","multipleOf":0.01}`, `1.25|-3|0.5`, `1.255|1e3`},
		{`{"type":"number"}`, `1|-0.5|1e10|1.5E-3`, `.5|1.|+1`},
		{`{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["v"]}}}`,
			`{"v":1}|{"v":1,"kids":[{"v":2,"kids":[]},{"v":3}]}`, `{"kids":[]}`},
	} {
		text, err := FromSchema([]byte(c.schema))
		require.NoError(t, err, c.schema)
		g, valid := parseGBNF(t, text), validator(t, c.schema)
		for _, yes := range strings.Split(c.yes, "|") {
			require.True(t, g.accepts(yes), "%s should allow %s\n%s", c.schema, yes, text)
			require.NoError(t, check(t, valid, yes))
		}
		for _, no := range strings.Split(c.no, "|") {
			require.False(t, g.accepts(no), "%s should refuse %s\n%s", c.schema, no, text)
		}
	}
}

// A schema that cannot be honoured is refused with the keyword and a way out.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ schema, keyword, says string }{
		{`{"type":"object","patternProperties":{}}`, "patternProperties", "name the properties"},
		{`{"allOf":[{},{}]}`, "allOf", "merged"},
		{`{"not":{}}`, "not", "allowed"},
		{`{"if":{}}`, "if", "anyOf"},
		{`{"type":"array","uniqueItems":true}`, "uniqueItems", "drop repeated"},
		{`{"type":"array","prefixItems":[]}`, "prefixItems", "named properties"},
		{`{"type":"array","minItems":3,"maxItems":2}`, "maxItems", "less than"},
		{`{"type":"array","maxItems":100000}`, "maxItems", "0 to 1000"},
		{`{"type":"string","maxLength":100000}`, "maxLength", "0 to 2000"},
		{`{"type":"string","minLength":-1}`, "minLength", "0 to 2000"},
		{`{"type":"string","format":"email"}`, "format", "pattern"},
		{`{"type":"string","format":"date","maxLength":3}`, "format", "leave"},
		{`{"type":"string","pattern":"a","minLength":3}`, "pattern", "length"},
		{`{"type":"string","pattern":"(?=a)"}`, "pattern", "look-around"},
		{`{"type":"string","pattern":"(a*b?)*"}`, "pattern", "empty"},
		{`{"type":"string","pattern":"^(a?|b?)(c?|d?)$"}`, "pattern", "more than one"},
		{`{"type":"string","pattern":"a\\b"}`, "pattern", "boundaries"},
		{`{"type":"string","pattern":"a^b"}`, "pattern", "start"},
		{`{"type":"number","minimum":0.5}`, "minimum", "whole number"},
		{`{"type":"number","minimum":1e300}`, "minimum", "leave it out"},
		{`{"type":"integer","minimum":5,"maximum":4}`, "minimum", "no whole number"},
		{`{"type":"integer","multipleOf":3}`, "multipleOf", "enum"},
		{`{"type":"integer","exclusiveMinimum":true}`, "exclusiveMinimum", "number"},
		{`{"type":"text"}`, "type", "none of"},
		{`{"type":"object","required":["x"]}`, "required", "describe"},
		{`{"type":"object","minProperties":1}`, "minProperties", "required"},
		{`{"enum":[]}`, "enum", "at least one"},
		{`{"enum":["a"],"type":"integer"}`, "enum", "type"},
		{`{"enum":["a"],"minLength":3}`, "minLength", "beside"},
		{`{"anyOf":[]}`, "anyOf", "not empty"},
		{`{"oneOf":[{"type":"integer"},{"type":"number"}]}`, "oneOf", "anyOf"},
		{`{"oneOf":[{"const":1},{"const":1.0}]}`, "oneOf", "anyOf"},
		{`{"$ref":"http://x/y"}`, "$ref", "outside"},
		{`{"$ref":"#/$defs/none"}`, "$ref", "not there"},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/a"}]}}}`, "$ref", "itself"},
		{`{"$ref":"#/$defs/a","type":"string","$defs":{"a":{}}}`, "type", "beside"},
		{`{"type":"object","properties":{"next":{"$ref":"#"}},"required":["next"]}`, "", "no finite value"},
		{`{"minimum":1,"minLength":1}`, "minimum", "type"},
		{`{"foo":1}`, "foo", "not known"},
		{`{"type":"string","minLength":"3"}`, "minLength", "whole number"},
		{`false`, "", "no value"},
		{`3`, "", "object"},
	} {
		_, err := FromSchema([]byte(c.schema))
		var refused *Error
		require.True(t, errors.As(err, &refused), "%s: %v", c.schema, err)
		require.Equal(t, c.keyword, refused.Keyword, c.schema)
		require.Contains(t, refused.Error(), c.says, c.schema)
	}
	for _, bad := range []string{``, `{`, `{} {}`, `{"a":1,"a":2}`, strings.Repeat("[", 100), `{"x":"` + strings.Repeat("a", bytesMax) + `"}`} {
		_, err := FromSchema([]byte(bad))
		require.Error(t, err)
	}
	huge := `{"type":"array","items":{"type":"array","items":{"type":"string","maxLength":2000},"maxItems":1000},"maxItems":1000}`
	_, err := FromSchema([]byte(strings.Repeat(`{"type":"array","maxItems":1000,"items":`, 20) + huge + strings.Repeat("}", 20)))
	require.ErrorContains(t, err, "elements")
}

func FuzzFromSchema(f *testing.F) {
	for _, schema := range schemas(f) {
		f.Add([]byte(schema), uint64(1))
	}
	f.Add([]byte(`{"type":"string","pattern":"^(a|b)*[^x]{2,3}$"}`), uint64(2))
	f.Fuzz(func(t *testing.T, schema []byte, seed uint64) {
		began := time.Now()
		text, err := FromSchema(schema)
		require.Less(t, time.Since(began), 5*time.Second, "a schema that holds up the worker")
		if err != nil {
			return
		}
		g := parseGBNF(t, text)
		require.Less(t, time.Since(began), 20*time.Second)
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(schema)))
		if err != nil {
			return
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		c.DefaultDraft(jsonschema.Draft2020)
		if c.AddResource("mem:///schema", doc) != nil {
			return
		}
		s, err := c.Compile("mem:///schema")
		if err != nil {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		for range 5 {
			answer := g.generate(random)
			require.NoError(t, check(t, s, answer), "%s\n%s\n%s", schema, answer, text)
		}
	})
}
