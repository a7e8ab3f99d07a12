package api

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// What reads much is bounded for each tenant by itself, is told when to come again, and gives its place back.
func TestLooksAtOnce(t *testing.T) {
	s := &Server{}
	acme, lab := access.With(t.Context(), access.Caller{Tenant: "acme"}), access.With(t.Context(), access.Caller{Tenant: "lab"})
	var leave func()
	for range looksMax {
		var err error
		leave, err = s.look(acme)
		require.NoError(t, err)
	}
	_, err := s.look(acme)
	p, ok := errors.AsType[*wire.Problem](err)
	require.True(t, ok)
	require.Equal(t, 429, p.Status)
	require.Positive(t, p.RetryAfter)
	require.Contains(t, p.Detail, "looksMax is reached: 4 at once")
	other, err := s.look(lab)
	require.NoError(t, err, "another tenant's are not in its way")
	other()
	leave()
	leave, err = s.look(acme)
	require.NoError(t, err)
	for range looksMax - 1 {
		leave() // each of them is the tenant's
	}
	leave()
	require.Empty(t, s.costly)
}
