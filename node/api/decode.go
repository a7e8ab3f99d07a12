package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// decodeSpec reads one task. The error is a *wire.Problem: 400 for what is no JSON object,
// 422 naming the field for one that is unknown or has a wrong type. Values are checked
// later, by Spec.Validate. b is not kept.
func decodeSpec(b []byte) (*task.Spec, error) {
	if err := checkObject(b); err != nil {
		return nil, err
	}
	spec := new(task.Spec)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(spec); err != nil {
		p := jsonProblem(err)
		if p.Key == "" && p.Status == http.StatusUnprocessableEntity {
			p.Key = culprit(b)
		}
		return nil, p
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, malformed("", "there is more after the JSON object: put each task on a line of its own")
	}
	return spec, nil
}

// culprit names the field that a type's own decoder refused: encoding/json does not say.
func culprit(b []byte) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil {
		return ""
	}
	for name, value := range fields {
		alone, err := json.Marshal(map[string]json.RawMessage{name: value})
		if err == nil && json.Unmarshal(alone, new(task.Spec)) != nil {
			return name
		}
	}
	return ""
}

// checkObject refuses what encoding/json would quietly change or take for an empty task.
func checkObject(b []byte) error {
	if !utf8.Valid(b) {
		return malformed("", "the text is not UTF-8").With("", "convert it, for example with iconv -t utf-8")
	}
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	switch {
	case len(trimmed) == 0:
		return malformed("", "there is no JSON object")
	case trimmed[0] != '{':
		return malformed("", "a task is a JSON object like {\"prompt\":\"...\"}, and this starts with %q", firstRune(trimmed))
	}
	return nil
}

func firstRune(b []byte) string {
	r, _ := utf8.DecodeRune(b)
	return string(r)
}

// decodeArray splits a JSON array of at most max tasks; each is decoded apart, so that one
// bad entry spares the others.
func decodeArray(b []byte, max int) ([]json.RawMessage, error) {
	if !utf8.Valid(b) {
		return nil, malformed("", "the text is not UTF-8").With("", "convert it, for example with iconv -t utf-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if _, err := dec.Token(); err != nil { // the '['
		return nil, jsonProblem(err)
	}
	var entries []json.RawMessage
	for dec.More() {
		if len(entries) == max {
			return nil, tooLarge("http.array_max", int64(max), "the array").With("http.array_max",
				"send a stream instead: one task a line with Content-Type application/x-ndjson")
		}
		var e json.RawMessage
		if err := dec.Decode(&e); err != nil {
			return nil, jsonProblem(err)
		}
		entries = append(entries, e)
	}
	if _, err := dec.Token(); err != nil { // the ']'
		return nil, jsonProblem(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, malformed("", "there is more after the JSON array")
	}
	return entries, nil
}

// jsonProblem says what encoding/json found, in words for a client.
func jsonProblem(err error) *wire.Problem {
	var p *wire.Problem
	if errors.As(err, &p) {
		return p
	}
	if _, ok := errors.AsType[*fault.Error](err); ok { // of a field that reads itself, which says what is right
		return wire.ProblemOf(err)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return malformed("", "no valid JSON at byte %d: %s", syntax.Offset, syntaxWords(syntax.Error()))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("", "the JSON ends too early")
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		field := wrong.Field
		if field == "" {
			field = "task"
		}
		return invalid(field, "has a %s where the API takes %s", wrong.Value, typeWords(wrong.Type.String()))
	}
	if moment, ok := errors.AsType[*time.ParseError](err); ok {
		return wire.NewProblem(http.StatusUnprocessableEntity, fault.Invalid, "", fmt.Sprintf("%.40q is no time: use one like \"2026-01-31T12:00:00Z\"", strings.Trim(moment.Value, `"`)))
	}
	msg := strings.TrimPrefix(err.Error(), "json: ")
	if name, ok := strings.CutPrefix(msg, "unknown field "); ok {
		name = strings.Trim(name, `"`)
		return invalid(name, "is no field of a task").With("", "check its spelling; /openapi.json lists the fields")
	}
	return wire.NewProblem(http.StatusUnprocessableEntity, fault.Invalid, "", msg) // from a field's own UnmarshalText
}

// syntaxWords says what encoding/json stumbled over, without what it looked for.
func syntaxWords(text string) string {
	if rest, ok := strings.CutPrefix(text, "invalid character "); ok && len(rest) > 0 {
		for _, cut := range []string{" looking ", " after ", " in "} {
			if c, _, found := strings.Cut(rest, cut); found {
				return "the character " + c + " cannot stand there"
			}
		}
	}
	if strings.HasPrefix(text, "unexpected end") {
		return "it ends too early"
	}
	return text
}

// typeWords keeps Go's names out of an answer.
func typeWords(goType string) string {
	switch {
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number"
	case strings.HasPrefix(goType, "float"):
		return "a number"
	case goType == "string":
		return "a string"
	case goType == "time.Time":
		return "a time like \"2026-01-31T12:00:00Z\""
	case strings.HasPrefix(goType, "[]"):
		return "an array"
	case strings.HasPrefix(goType, "map["):
		return "an object with string values"
	}
	return "an object"
}
