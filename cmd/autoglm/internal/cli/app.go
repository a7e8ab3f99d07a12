// Package cli is what the commands of autoglm share: where they read and write, how they
// reach a node, how they show tables and progress, and what their exit codes say.
package cli

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// ServerEnv names the environment variable with the node's address, or those of several nodes of a cluster.
const ServerEnv = "AUTOGLM_SERVER"

// Names of the environment variables with what a client shows, and whom it trusts.
const (
	KeyEnv     = "AUTOGLM_API_KEY"
	KeyFileEnv = "AUTOGLM_API_KEY_FILE"
	TrustEnv   = "AUTOGLM_CA_FILE"
)

// ServerDefault is where `autoglm serve` listens unless told otherwise.
const ServerDefault = "http://127.0.0.1:8080"

// App is one run of the program.
type App struct {
	In       io.Reader
	Out, Err io.Writer

	Version string
	Server  string        // --server
	Output  string        // -o: table or json
	Retry   time.Duration // --retry-for
	KeyFile string        // --api-key-file
	CAFile  string        // --ca-file

	retry []*pflag.Flag // --retry-for of each command
	usage string        // how the command that was named is written
}

// Named notes which command runs, for what is said about its arguments.
func (a *App) Named(cmd *cobra.Command) {
	if cmd != nil {
		a.usage = "autoglm " + strings.TrimPrefix(strings.TrimSuffix(cmd.UseLine(), " [flags]"), "autoglm ")
	}
}

// New makes an App on the process's own streams.
func New(version string) *App {
	return &App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version, Output: "table"}
}

// ClientFlags adds the flags of every command that talks to a node.
func (a *App) ClientFlags(cmd *cobra.Command) {
	server := os.Getenv(ServerEnv)
	if server == "" {
		server = ServerDefault
	}
	cmd.Flags().StringVar(&a.Server, "server", server, "`URL` of the node, or of several of its cluster, with commas between them: the next is asked when\none fails (or "+ServerEnv+")")
	cmd.Flags().DurationVar(&a.Retry, "retry-for", 30*time.Second, "how long to try again while the nodes are busy or away, and no longer; without this flag, a node\nthat refuses the first connection is not waited for")
	cmd.Flags().StringVar(&a.KeyFile, "api-key-file", os.Getenv(KeyFileEnv), "`file` with the API key to show (or "+KeyFileEnv+"; the key itself in "+KeyEnv+" is taken before it)")
	cmd.Flags().StringVar(&a.CAFile, "ca-file", os.Getenv(TrustEnv), "`file` with the certificate authority of https servers, like ca.crt of autoglm init (or "+TrustEnv+")")
	a.retry = append(a.retry, cmd.Flags().Lookup("retry-for"))
	a.OutputFlag(cmd)
}

// OutputFlag adds -o alone.
func (a *App) OutputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.Output, "output", "o", a.Output, "table or json")
	Complete(cmd, "output", "table", "json")
}

// Group makes cmd a command that only has others below it: alone it explains itself, another word is an error.
func Group(cmd *cobra.Command) {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		return Usage("unknown command %q for %q: use one of %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
	}
}

// Complete offers values for a flag in the shell.
func Complete(cmd *cobra.Command, flag string, values ...string) {
	// fails only for a flag that does not exist, which a test of each command would show
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// Client makes the client of the nodes that the flags name.
func (a *App) Client(extra ...client.Option) (*client.Client, error) {
	if a.Output != "table" && a.Output != "json" {
		return nil, Usage("-o is %q: use table or json", a.Output)
	}
	opts := []client.Option{client.WithRetry(a.Retry)}
	if slices.ContainsFunc(a.retry, func(f *pflag.Flag) bool { return f.Changed }) {
		opts = append(opts, client.WithPatience())
	}
	more, err := a.shown()
	if err != nil {
		return nil, err
	}
	return client.New(a.Server, append(append(opts, more...), extra...)...)
}

// shown is the key that servers see, and the authority that they are trusted by.
func (a *App) shown() (opts []client.Option, err error) {
	key := os.Getenv(KeyEnv)
	if a.KeyFile != "" && key == "" {
		b, err := os.ReadFile(a.KeyFile)
		if err != nil {
			return nil, fault.New(fault.Invalid, "", "--api-key-file", "%w", err).WithRemedy("name a file with an API key, readable by you")
		}
		key = string(b)
	}
	if key = strings.TrimSpace(key); strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, Usage("what is given as the API key is none: it has blanks, line ends or other signs in it; name the file that autoglm init or autoglm key made with --api-key-file")
	}
	if key != "" {
		opts = append(opts, client.WithAPIKey(key))
	}
	if a.CAFile == "" {
		return opts, nil
	}
	b, err := os.ReadFile(a.CAFile)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(b) {
		err = errors.New("there is no certificate in " + a.CAFile)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "", "--ca-file", "%w", err).WithRemedy("name the ca.crt of the folder that autoglm init made")
	}
	return append(opts, client.WithTrust(pool)), nil
}

// JSON tells whether -o json was given.
func (a *App) JSON() bool { return a.Output == "json" }

// PrintJSON writes v on one line.
func (a *App) PrintJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// IsTTY tells whether w is a terminal.
func IsTTY(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Width returns the columns of the terminal that w is; 0: it is none, and lines may be of any length.
func Width(w io.Writer) int {
	if !IsTTY(w) {
		return 0
	}
	n, _, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil {
		return 0
	}
	return n
}

// Metadata parses the values of --metadata, each KEY=VALUE.
func Metadata(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, Usage("--metadata is %q: write KEY=VALUE", p)
		}
		m[k] = v
	}
	return m, nil
}

// Usage is an error of whoever typed the command.
func Usage(format string, args ...any) error {
	return fault.New(fault.Invalid, "", "", format, args...)
}

// NotNegative refuses a flag that counts something and is below 0.
func NotNegative(flag string, n int) error {
	if n < 0 {
		return Usage("--%s is %d: use 0 or more", flag, n)
	}
	return nil
}
