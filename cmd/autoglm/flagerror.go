package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

// flagError says what is wrong with a flag's value in a user's words: pflag shows what Go's parsers said.
func flagError(_ *cobra.Command, err error) error {
	text := err.Error()
	for said, use := range map[string]string{": strconv.ParseInt:": "use a whole number", ": strconv.ParseUint:": "use a whole number, 0 or more", ": strconv.ParseFloat:": "use a number",
		": strconv.ParseBool:": "use true or false", ": time: ": "use a time like 90s or 1h30m"} {
		if head, rest, found := strings.Cut(text, said); found {
			if strings.Contains(rest, "out of range") {
				use = "the number is too large"
			}
			return errors.New(head + ": " + use)
		}
	}
	return err
}
