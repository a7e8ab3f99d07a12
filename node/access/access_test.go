package access

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// shelf is Keys of what a test puts there.
type shelf struct {
	mu    sync.Mutex
	keys  map[string]apikey.Key
	err   error
	looks int
	takes time.Duration
}

func (s *shelf) Get(_ context.Context, id string) (apikey.Key, error) {
	if s.takes > 0 {
		time.Sleep(s.takes) // in a bubble
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	if s.err != nil {
		return apikey.Key{}, s.err
	}
	k, ok := s.keys[id]
	if !ok {
		return k, fault.New(fault.NotFound, "apikey", id, "no such key")
	}
	return k, nil
}

// put makes a key and returns its text.
func (s *shelf) put(t *testing.T, k apikey.Key) string {
	t.Helper()
	text, root, err := apikey.NewRoot() // a key like any other
	require.NoError(t, err)
	k.ID, k.Hash = root.ID, root.Hash
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.ID] = k
	return text
}

func TestWhoCalls(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := &shelf{keys: map[string]apikey.Key{}}
	rootText, root, err := apikey.NewRoot()
	require.NoError(t, err)
	acme := s.put(t, apikey.Key{Tenant: "acme", Role: apikey.Submit, Name: "ci"})
	gone := s.stranger(t, apikey.Key{Tenant: "acme", Role: apikey.Admin, RevokedAt: now})
	old := s.stranger(t, apikey.Key{Tenant: "acme", Role: apikey.Admin, ExpiresAt: now})
	other, _, err := apikey.NewRoot()
	require.NoError(t, err)
	id, _ := apikey.ID(acme)
	forged := "ag_" + id + other[len("ag_")+len(id):] // its checksum is wrong, too
	operator := Caller{Tenant: tenant.Default, Role: apikey.Admin, Open: true}
	for _, c := range []struct {
		name, text   string
		closed, open any // Caller or error
	}{
		{"none", "", ErrNone, operator},
		{"what clients of OpenAI send", "sk-whatever", ErrBad, operator},
		{"root", rootText, Caller{Key: root.ID, Name: "root", Tenant: tenant.Default, Role: apikey.Admin}, nil},
		{"a tenant's", acme, Caller{Key: id, Name: "ci", Tenant: "acme", Role: apikey.Submit}, nil},
		{"cut", acme[:len(acme)-1], ErrBad, operator},
		{"forged", forged, ErrBad, operator},
		{"of another cluster", other, ErrBad, ErrBad},
		{"a revoked one's secret is wrong", gone, ErrBad, ErrBad},
		{"an expired one's, too", old, ErrBad, ErrBad},
	} {
		if c.open == nil {
			c.open = c.closed
		}
		for open, want := range map[bool]any{false: c.closed, true: c.open} {
			g := New(open, root, s, func() time.Time { return now })
			who, err := g.Who(t.Context(), c.text)
			if e, bad := want.(error); bad {
				require.Equal(t, e, err, c.name)
				require.Zero(t, who, c.name)
				continue
			}
			require.NoError(t, err, c.name)
			require.Equal(t, want, who, c.name)
		}
	}
}

// stranger is a text with the id of a key, whose secret is another.
func (s *shelf) stranger(t *testing.T, k apikey.Key) string {
	t.Helper()
	text := s.put(t, k)
	id, _ := apikey.ID(text)
	k = s.keys[id]
	k.Hash = apikey.Hash("another")
	s.keys[id] = k
	return text
}

// TestAKeyThatHasEnded says so to whoever holds its secret, and to nobody else; who tried is known.
func TestAKeyThatHasEnded(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := &shelf{keys: map[string]apikey.Key{}}
	g := New(false, apikey.Root{}, s, func() time.Time { return now })
	for _, c := range []struct {
		key  apikey.Key
		says string
	}{
		{apikey.Key{RevokedAt: now}, "the API key was revoked at 2001-09-09T01:46:40Z"},
		{apikey.Key{ExpiresAt: now}, "the API key expired at 2001-09-09T01:46:40Z"},
		{apikey.Key{ExpiresAt: now, RevokedAt: now}, "revoked at"},
	} {
		c.key.Tenant, c.key.Role = "acme", apikey.Admin
		text := s.put(t, c.key)
		id, _ := apikey.ID(text)
		who, err := g.Who(t.Context(), text)
		require.ErrorContains(t, err, c.says)
		require.True(t, Unknown(err))
		require.Equal(t, Caller{Key: id, Tenant: "acme", Role: apikey.Admin}, who)
		who, err = g.Who(t.Context(), s.stranger(t, c.key))
		require.Equal(t, ErrBad, err)
		require.Zero(t, who)
	}
	text := s.put(t, apikey.Key{Tenant: "acme", Role: apikey.Read})
	id, _ := apikey.ID(text)
	k := s.keys[id]
	k.Before, k.Hash, k.Until, k.RotatedAt = k.Hash, apikey.Hash("x"), now, now.Add(-time.Hour)
	s.keys[id] = k
	_, err := g.Who(t.Context(), text)
	require.ErrorContains(t, err, "was rotated at 2001-09-09T00:46:40Z, and this secret of it was good until 2001-09-09T01:46:40Z")
}

func TestAKeyIsLookedUpNowAndThen(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := &shelf{keys: map[string]apikey.Key{}}
	text := s.put(t, apikey.Key{Tenant: "acme", Role: apikey.Read})
	id, _ := apikey.ID(text)
	g := New(false, apikey.Root{}, s, func() time.Time { return now })
	who := func() error { _, err := g.Who(t.Context(), text); return err }
	for range 3 {
		require.NoError(t, who())
	}
	require.Equal(t, 1, s.looks)
	k := s.keys[id]
	k.RevokedAt = now
	s.keys[id] = k
	require.NoError(t, who(), "believed for a moment")
	g.Forget(id)
	require.ErrorContains(t, who(), "revoked at", "at once where it was revoked")

	k.RevokedAt = time.Time{}
	s.keys[id] = k
	now = now.Add(believed)
	require.NoError(t, who())
	s.err = fault.New(fault.Unavailable, "x", "", "no owner")
	now = now.Add(believed)
	require.NoError(t, who(), "what was known holds while the shard changes its owner")
	now = now.Add(atMost)
	require.Equal(t, fault.Unavailable, fault.KindOf(who()), "but not for long")
	require.NotEqual(t, ErrBad, who())
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	s := &shelf{keys: map[string]apikey.Key{}}
	g := New(false, apikey.Root{}, s, time.Now)
	for range absentMax + 100 {
		text, _, err := apikey.NewRoot()
		require.NoError(t, err)
		_, err = g.Who(t.Context(), text)
		require.Equal(t, ErrBad, err)
	}
	require.LessOrEqual(t, len(g.absent), absentMax)
	require.Empty(t, g.kept, "strangers push out no key that exists")
}

func TestAKeysRate(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := &shelf{keys: map[string]apikey.Key{}}
	text := s.put(t, apikey.Key{Tenant: "acme", Role: apikey.Read, Rate: 0.001})
	g := New(false, apikey.Root{}, s, func() time.Time { return now })
	for i := range burstMin {
		_, err := g.Who(t.Context(), text)
		require.NoError(t, err, i)
		now = now.Add(believed) // looking it up again gives no new requests
	}
	_, err := g.Who(t.Context(), text)
	require.Equal(t, fault.Overloaded, fault.KindOf(err))
	require.NotEmpty(t, fault.RemedyOf(err))
}

func TestWhatRoutesNeed(t *testing.T) {
	op := func(r apikey.Role) Need { return Need{Role: r, Operator: true} }
	for _, c := range []struct {
		method, path string
		want         Need
	}{
		{"GET", "/healthz", Need{Anyone: true}},
		{"GET", "/readyz", Need{Anyone: true}},
		{"GET", "/docs", Need{Anyone: true}},
		{"GET", "/metrics", op(apikey.Read)},
		{"GET", "/v1/cluster", op(apikey.Read)},
		{"GET", "/v1/cluster/events", op(apikey.Read)},
		{"POST", "/v1/cluster/drain", op(apikey.Admin)},
		{"POST", "/v1/admin/backup", op(apikey.Admin)},
		{"GET", "/v1/admin/anything", op(apikey.Admin)},
		{"GET", "/v1/sinks", op(apikey.Read)},
		{"POST", "/v1/sinks/x/pause", op(apikey.Admin)},
		{"DELETE", "/v1/sinks/x", op(apikey.Admin)},
		{"GET", "/v1/keys", Need{Role: apikey.Admin}},
		{"POST", "/v1/keys/x/rotate", Need{Role: apikey.Admin}},
		{"GET", "/v1/audit", Need{Role: apikey.Admin}},
		{"GET", "/v1/tasks", Need{Role: apikey.Read}},
		{"GET", "/v1/tasks/x/explain", Need{Role: apikey.Read}},
		{"GET", "/v1/dead", Need{Role: apikey.Read}},
		{"GET", "/v1/dead/summary", Need{Role: apikey.Read}},
		{"POST", "/v1/dead/retry", Need{Role: apikey.Submit}},
		{"GET", "/v1/schedules/x", Need{Role: apikey.Read}},
		{"GET", "/v1/quotas", Need{Role: apikey.Read}},
		{"PUT", "/v1/quotas/acme", Need{Role: apikey.Admin, Operator: true}},
		{"DELETE", "/v1/quotas/acme", Need{Role: apikey.Admin, Operator: true}},
		{"POST", "/v1/schedules/x/run", Need{Role: apikey.Submit}},
		{"DELETE", "/v1/schedules/x", Need{Role: apikey.Submit}},
		{"GET", "/v1/engines", Need{Role: apikey.Read, Operator: true}},
		{"POST", "/v1/engines", Need{Role: apikey.Admin, Operator: true}},
		{"POST", "/v1/engines/x/swap", Need{Role: apikey.Admin, Operator: true}},
		{"DELETE", "/v1/engines/x", Need{Role: apikey.Admin, Operator: true}},
		{"HEAD", "/v1/files/x/content", Need{Role: apikey.Read}},
		{"GET", "/v1/status", Need{Role: apikey.Read}},
		{"POST", "/v1/tasks", Need{Role: apikey.Submit}},
		{"DELETE", "/v1/files/x", Need{Role: apikey.Submit}},
		{"POST", "/v1/chat/completions", Need{Role: apikey.Submit}},
		{"POST", "/autoglm.actor.v1.ActorService/State", Need{Role: apikey.Read}},
		{"POST", "/autoglm.actor.v1.ActorService/Watch", Need{Role: apikey.Read}},
		{"POST", "/autoglm.actor.v1.ActorService/Ask", Need{Role: apikey.Submit}},
		{"DELETE", "/v1/files/x.ActorService/State", Need{Role: apikey.Submit}},
		{"PUT", "/v1/anything", Need{Role: apikey.Submit}},
		{"POST", "/healthz", Need{Role: apikey.Submit}},
	} {
		require.Equal(t, c.want, NeedOf(c.method, c.path), "%s %s", c.method, c.path)
	}
}

func TestWhoMayWhat(t *testing.T) {
	for _, c := range []struct {
		who  Caller
		need Need
		ok   bool
	}{
		{Caller{Tenant: "acme", Role: apikey.Read}, Need{Role: apikey.Read}, true},
		{Caller{Tenant: "acme", Role: apikey.Read}, Need{Role: apikey.Submit}, false},
		{Caller{Tenant: "acme", Role: apikey.Submit}, Need{Role: apikey.Admin}, false},
		{Caller{Tenant: "acme", Role: apikey.Admin}, Need{Role: apikey.Admin}, true},
		{Caller{Tenant: "acme", Role: apikey.Admin}, Need{Role: apikey.Read, Operator: true}, false},
		{Caller{Tenant: tenant.Default, Role: apikey.Read}, Need{Role: apikey.Read, Operator: true}, true},
		{Caller{Tenant: tenant.Default, Role: apikey.Read}, Need{Role: apikey.Admin, Operator: true}, false},
		{Caller{}, Need{Anyone: true}, true},
		{Caller{}, Need{Role: apikey.Read}, false},
		{Caller{Role: "root"}, Need{Role: apikey.Read}, false},
	} {
		err := c.who.Allow(c.need)
		require.Equal(t, c.ok, err == nil, "%+v %+v", c.who, c.need)
		if err != nil {
			require.Equal(t, fault.Refused, fault.KindOf(err))
			require.NotEmpty(t, fault.RemedyOf(err))
		}
	}
}

func TestWhereAKeyIs(t *testing.T) {
	for _, c := range []struct {
		name, value, want string
	}{
		{"Authorization", "Bearer x", "x"},
		{"Authorization", "bearer  x ", "x"},
		{"Authorization", "Basic x", ""},
		{"Authorization", "x", ""},
		{"X-Api-Key", "x", "x"},
	} {
		h := http.Header{}
		h.Set(c.name, c.value)
		require.Equal(t, c.want, Text(h), "%s: %s", c.name, c.value)
	}
}

// TestARequestThatLastsEndsWithItsKey: a stream that began while the key was good.
func TestARequestThatLastsEndsWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{keys: map[string]apikey.Key{}}
		text := s.put(t, apikey.Key{Tenant: "acme", Role: apikey.Read})
		id, _ := apikey.ID(text)
		g := New(false, apikey.Root{}, s, time.Now)
		gone := make(chan struct{})
		stop := g.Attend(t.Context(), text, func() { close(gone) })
		defer stop()
		ended := func() bool {
			select {
			case <-gone:
				return true
			default:
				return false
			}
		}
		time.Sleep(10 * believed)
		synctest.Wait()
		require.False(t, ended())
		s.mu.Lock()
		k := s.keys[id]
		k.RevokedAt = time.Now()
		s.keys[id] = k
		s.mu.Unlock()
		time.Sleep(2 * believed)
		synctest.Wait()
		require.True(t, ended())
		looks := s.looks
		time.Sleep(10 * believed)
		synctest.Wait()
		require.Equal(t, looks, s.looks, "and nobody looks any more")
	})
}

// TestManyAtOnceWithOneKey: one looks, the others wait for it.
func TestManyAtOnceWithOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{keys: map[string]apikey.Key{}, takes: time.Second}
		text := s.put(t, apikey.Key{Tenant: "acme", Role: apikey.Read})
		g := New(false, apikey.Root{}, s, time.Now)
		var wg sync.WaitGroup
		errs := make([]error, 10*looksMax)
		for i := range errs {
			wg.Go(func() { _, errs[i] = g.Who(t.Context(), text) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		require.Equal(t, 1, s.looks)
	})
}
