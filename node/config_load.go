package node

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// EnvPrefix starts the environment variable of each key: batch.size_max is
// AUTOGLM_BATCH_SIZE_MAX. Lists are separated by commas.
const EnvPrefix = "AUTOGLM_"

// Load reads the settings: flags before the environment, that before the file, that before
// Default. path may be empty, flags maps keys like "http.listen" to text. It returns the
// names of AUTOGLM_ variables that are no setting, for a warning: they may be meant for a
// test or for a later version. The result is validated.
func Load(path string, environ []string, flags map[string]any) (c Config, unknown []string, err error) {
	k := koanf.New(".")
	if path != "" {
		if err := loadFile(k, path); err != nil {
			return Config{}, nil, err
		}
	}
	byEnv := map[string]string{}
	for _, s := range Settings() {
		byEnv[s.Env] = s.Key
	}
	vars := env.Provider(".", env.Opt{Prefix: EnvPrefix, EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := byEnv[name]
			if !ok {
				unknown = append(unknown, name)
			}
			return key, value
		}})
	if err := k.Load(vars, nil); err != nil {
		return Config{}, nil, fmt.Errorf("config: environment: %w", err)
	}
	for key, value := range flags {
		if err := k.Set(key, value); err != nil {
			return Config{}, nil, fmt.Errorf("config: flag %s: %w", key, err)
		}
	}
	c = Default()
	if err := unmarshal(k, &c); err != nil {
		return Config{}, nil, err
	}
	slices.Sort(unknown)
	return c, unknown, c.Validate()
}

func loadFile(k *koanf.Koanf, path string) error {
	err := k.Load(file.Provider(path), yaml.Parser())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "config", path, "there is no such file").WithRemedy("autoglm serve --print-config > %s makes one", path)
	case err != nil:
		return fault.New(fault.Invalid, "config", path, "cannot be read: %w", err)
	}
	return nil
}

// unmarshal is strict: a key that is no setting is an error, with the nearest one as remedy.
func unmarshal(k *koanf.Koanf, c *Config) error {
	known := map[string]bool{}
	for _, s := range Settings() {
		known[s.Key] = true
	}
	var unknown wrong
	for _, key := range k.Keys() {
		if !known[key] {
			unknown.add(fault.New(fault.Invalid, "config", key, "is no setting").WithRemedy("%sautoglm serve --print-config lists them all", didYouMean(key)))
		}
	}
	if len(unknown) > 0 {
		return errors.Join(unknown...)
	}
	if k.Exists("engines") {
		c.Engines = nil // a list replaces the default, it does not merge into it
	}
	err := k.UnmarshalWithConf("", c, koanf.UnmarshalConf{Tag: "koanf", DecoderConfig: &mapstructure.DecoderConfig{
		Result: c, WeaklyTypedInput: true, ErrorUnused: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			decodeEngine,
			decodeDuration,
			mapstructure.TextUnmarshallerHookFunc(),
			splitList,
		),
	}})
	if err != nil {
		msg := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "decoding failed due to the following error(s):  ")
		return fault.New(fault.Invalid, "config", "", "%s", plainly(msg))
	}
	return nil
}

// decodeEngine takes a bare URL for an engine.
func decodeEngine(from, to reflect.Type, v any) (any, error) {
	if to == reflect.TypeFor[EngineConfig]() && from.Kind() == reflect.String {
		return EngineConfig{URL: strings.TrimSpace(v.(string))}, nil
	}
	return v, nil
}

// decodeDuration also takes a plain 0.
func decodeDuration(from, to reflect.Type, v any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() {
		return v, nil
	}
	d, err := time.ParseDuration(fmt.Sprint(v))
	if err != nil {
		return nil, fmt.Errorf("%q is no duration: write it like 90s or 1h30m", fmt.Sprint(v))
	}
	return d, nil
}

// splitList takes "a,b" for a list; "" is an empty one.
func splitList(from, to reflect.Type, v any) (any, error) {
	if from.Kind() != reflect.String || to.Kind() != reflect.Slice {
		return v, nil
	}
	var list []string
	for part := range strings.SplitSeq(v.(string), ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list, nil
}

// didYouMean names the setting that has the same last part, or else the one whose spelling is nearest, and nothing when
// none is near: then it was no slip.
func didYouMean(key string) string {
	best, bestDistance := "", max(1, len(key)/3)+1
	for _, s := range Settings() {
		d := distance(s.Key, key)
		if s.Key[strings.LastIndex(s.Key, ".")+1:] == key[strings.LastIndex(key, ".")+1:] {
			d = 0
		}
		if d < bestDistance {
			best, bestDistance = s.Key, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "; "
}

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
