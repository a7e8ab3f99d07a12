package openaitest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

const npmVersion = "6.49.0" // docs/openai.md names it

// TestTheNpmClientOnThreeNodes does what TestTheGoClientOnThreeNodes does, in npm/batch.mjs.
func TestTheNpmClientOnThreeNodes(t *testing.T) {
	program, err := exec.LookPath("node")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("OpenAI's npm client is not tested: there is no node in PATH. Install nodejs and npm, then run: make test")
	}
	require.NoError(t, err, "install nodejs and npm, as .ci/run does")
	_, err = os.Stat("npm/node_modules/openai/package.json")
	require.NoError(t, err, "run: make npm")
	k := start(t)
	given, err := json.Marshal(map[string]any{"urls": k.urls, "hooks": k.hooks, "secret": k.secret, "expires": expires, "model": model, "inputs": inputs()})
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "npm/batch.mjs")
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(given), &said
	out, err := cmd.Output()
	require.NoError(t, err, "%s", said.String())
	var rep report
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(&rep), "%s", out)
	check(t, rep, "openai "+npmVersion, map[int]string{400: "BadRequestError", 404: "NotFoundError", 409: "ConflictError"})
}
