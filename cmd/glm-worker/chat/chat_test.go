package chat

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// vocabulary has a token for each byte and for some control texts. With leaks its tokenizer finds those even in plain
// text, as some converted files make llama.cpp do.
type vocabulary struct {
	special []string
	leaks   bool
}

func (v vocabulary) Special(text string) (int32, bool) {
	for i, s := range v.special {
		if s == text {
			return int32(1000 + i), true
		}
	}
	return 0, false
}

func (v vocabulary) Tokenize(text string) (out []int32) {
	for text != "" {
		next := 1
		id := int32(text[0])
		for i, s := range v.special {
			if v.leaks && strings.HasPrefix(text, s) {
				next, id = len(s), int32(1000+i)
			}
		}
		out, text = append(out, id), text[next:]
	}
	return out
}

// spell writes tokens with control tokens in braces.
func (v vocabulary) spell(tokens []int32) string {
	var b strings.Builder
	for _, id := range tokens {
		if id >= 1000 {
			b.WriteString("{" + v.special[id-1000] + "}")
		} else {
			b.WriteByte(byte(id))
		}
	}
	return b.String()
}

var glm4 = []string{"<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"}

func TestEncode(t *testing.T) {
	talk := []Message{{"system", "be kind"}, {"user", "hi"}, {"assistant", "hello"}, {"user", "bye"}}
	for _, c := range []struct {
		name, architecture string
		special            []string
		want               string
	}{
		{"glm4", "glm4", glm4, "{[gMASK]}{<sop>}{<|system|>}\nbe kind{<|user|>}\nhi{<|assistant|>}\nhello{<|user|>}\nbye{<|assistant|>}\n"},
		{"chatglm 3", "chatglm", []string{"[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>"},
			"{[gMASK]}{sop}{<|system|>}\nbe kind{<|user|>}\nhi{<|assistant|>}\nhello{<|user|>}\nbye{<|assistant|>}\n"},
		{"glm 4.5 does not think", "glm4moe", append([]string{"<think>", "</think>", "/nothink"}, glm4...),
			"{[gMASK]}{<sop>}{<|system|>}\nbe kind{<|user|>}\nhi{/nothink}{<|assistant|>}\n{<think>}{</think>}\nhello{<|user|>}\nbye{/nothink}{<|assistant|>}\n{<think>}{</think>}\n"},
		{"glm 4.5 without the tokens", "glm4moe", glm4,
			"{[gMASK]}{<sop>}{<|system|>}\nbe kind{<|user|>}\nhi/nothink{<|assistant|>}\n<think></think>\nhello{<|user|>}\nbye/nothink{<|assistant|>}\n<think></think>\n"},
	} {
		v := vocabulary{special: c.special}
		template, err := New(c.architecture, v)
		require.NoError(t, err, c.name)
		tokens, err := template.Encode(talk)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, v.spell(tokens), c.name)
	}
}

// Text stays text, whatever it spells and however eager the tokenizer is.
func TestTextOpensNoTurn(t *testing.T) {
	for _, leaks := range []bool{false, true} {
		v := vocabulary{special: append([]string{"<think>", "</think>", "/nothink"}, glm4...), leaks: leaks}
		template, err := New("glm4moe", v)
		require.NoError(t, err)
		for _, text := range append([]string{"", "x", "<|user|><|user|>", "<|us<|user|>er|>", "<<|system|>", "a<|assistant|>b[gMASK]<sop>"}, v.special...) {
			require.Equal(t, text, v.spell(template.Text(text)), "leaks %v", leaks)
			tokens, err := template.Encode([]Message{{"user", text}})
			require.NoError(t, err)
			require.Equal(t, "{[gMASK]}{<sop>}{<|user|>}\n"+text+"{/nothink}{<|assistant|>}\n{<think>}{</think>}\n", v.spell(tokens))
		}
	}
}

func TestRefusals(t *testing.T) {
	_, err := New("llama", vocabulary{special: glm4})
	require.ErrorContains(t, err, `"llama"`)
	require.ErrorContains(t, err, "chatglm, glm4, glm4moe")
	_, err = New("glm4", vocabulary{special: glm4[:4]})
	require.ErrorContains(t, err, "<sop>")
	template, err := New("glm4", vocabulary{special: glm4})
	require.NoError(t, err)
	_, err = template.Encode([]Message{{"tool", "x"}})
	require.ErrorContains(t, err, "tool")
	_, err = template.Encode(nil)
	require.Error(t, err)
}

func FuzzText(f *testing.F) {
	f.Add("<|user|>x[gMASK]")
	v := vocabulary{special: glm4, leaks: true}
	template, err := New("glm4", v)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		require.Equal(t, text, v.spell(template.Text(text)))
	})
}
