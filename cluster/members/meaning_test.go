package members

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMeaning(t *testing.T) {
	for text, want := range map[string]string{
		`discarding packet with unacceptable label "x": from=1.2.3.4:5`:                                     "another cluster",
		`Decrypt packet failed: No installed keys could decrypt the message from=127.0.0.1:7946`:            "another gossip key",
		`1 error occurred: * Failed to join 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused`: "nobody listens there",
		`lookup nosuch.invalid on 10.0.0.2:53: no such host`:                                                "the name has no address",
		`Failed to join 127.0.0.1:8080: encryption is configured but remote state is not encrypted`:         "not that of its API",
		`Failed to join 10.0.0.1:7946: EOF`:                                                                 "it hung up",
		`Failed to join 10.0.0.1:7946: dial tcp 10.0.0.1:7946: i/o timeout`:                                 "cannot be reached",
		`Suspect b has failed, no acks received`:                                                            "",
	} {
		got := meaning(text)
		if want == "" {
			require.Empty(t, got, text)
			continue
		}
		require.Contains(t, got, want, text)
	}
}
