package sink_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// pgServer is a PostgreSQL server of the test's own, in a folder of its own, with a password.
type pgServer struct {
	t    *testing.T
	bin  string
	dir  string
	port int
	url  string
	as   *syscall.SysProcAttr
}

// startPostgres starts one. Where PostgreSQL is not installed the test is left out, but not in CI.
func startPostgres(t *testing.T) *pgServer {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	require.NoError(t, err)
	if len(found) == 0 {
		const missing = "PostgreSQL is not installed: apt-get install postgresql"
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	s := &pgServer{t: t, bin: filepath.Dir(found[len(found)-1])}
	s.dir, err = os.MkdirTemp("", "pg") // the path of a socket has at most 107 bytes
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(s.dir)) })
	password := filepath.Join(s.dir, "password")
	require.NoError(t, os.WriteFile(password, []byte(secretValue), 0o644))
	s.unprivileged()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.port = l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	s.run("initdb", "-D", s.data(), "-U", "writer", "--auth=scram-sha-256", "--pwfile="+password, "--no-sync", "--no-locale", "-E", "UTF8")
	s.url = fmt.Sprintf("postgres://writer@127.0.0.1:%d/postgres", s.port)
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *pgServer) data() string { return filepath.Join(s.dir, "data") }

// unprivileged makes root somebody else, for PostgreSQL does not run as root.
func (s *pgServer) unprivileged() {
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("nobody")
	require.NoError(s.t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	require.NoError(s.t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	require.NoError(s.t, err)
	require.NoError(s.t, os.Chown(s.dir, int(uid), int(gid)))
	s.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func (s *pgServer) run(name string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.SysProcAttr, cmd.Dir = s.as, s.dir
	log, err := os.CreateTemp(s.dir, name) // not a pipe: the server would hold it
	require.NoError(s.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		server, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		require.NoError(s.t, err, "%s\n%s", text, server)
	}
}

// start returns when it takes connections.
func (s *pgServer) start() {
	s.t.Helper()
	s.run("pg_ctl", "start", "-w", "-t", "120", "-D", s.data(), "-l", filepath.Join(s.dir, "log"),
		"-o", fmt.Sprintf("-p %d -k %s -c listen_addresses=127.0.0.1 -c shared_buffers=16MB", s.port, s.dir))
}

// stop is as if it had crashed.
func (s *pgServer) stop() { s.run("pg_ctl", "stop", "-m", "immediate", "-D", s.data()) }

func (s *pgServer) connect() *pgx.Conn {
	c, err := pgx.ParseConfig(s.url)
	require.NoError(s.t, err)
	c.Password = secretValue
	conn, err := pgx.ConnectConfig(context.Background(), c)
	require.NoError(s.t, err)
	return conn
}
