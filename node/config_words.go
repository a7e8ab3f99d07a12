package node

import (
	"reflect"
	"regexp"
	"strings"
)

var (
	noNumber = regexp.MustCompile(`'([^']+)' cannot parse value as '[^']*': strconv\.Parse(\w+): [a-z ]+`)
	noKeys   = regexp.MustCompile(`'([^']+)' has invalid keys: ([^' ]+(?:, [^' ]+)*)`)
)

// plainly says what the decoder said in a user's words.
func plainly(msg string) string {
	msg = noNumber.ReplaceAllStringFunc(msg, func(s string) string {
		m := noNumber.FindStringSubmatch(s)
		use := map[string]string{"Int": "use a whole number", "Uint": "use a whole number, 0 or more", "Bool": "use true or false"}[m[2]]
		switch {
		case strings.HasSuffix(s, "out of range"):
			use = "the number is too large"
		case use == "":
			use = "use a number"
		}
		return m[1] + ": " + use
	})
	return noKeys.ReplaceAllStringFunc(msg, func(s string) string {
		m := noKeys.FindStringSubmatch(s)
		var all []string
		for key := range strings.SplitSeq(m[2], ", ") {
			text := m[1] + "." + key + ": is no setting"
			if near := nearestField(key); near != "" {
				text += " (did you mean " + near + ")"
			}
			all = append(all, text)
		}
		return strings.Join(all, "; ")
	})
}

// nearestField names the key within an engine that begins so, or whose spelling is nearest; nothing when none is near.
func nearestField(key string) string {
	best, bestDistance := "", max(1, len(key)/3)+1
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("koanf"), ",")
			d := distance(name, key)
			if strings.HasPrefix(name, key) {
				d = 0
			}
			if name != "" && d < bestDistance {
				best, bestDistance = name, d
			}
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[EngineConfig]())
	return best
}
