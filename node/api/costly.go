package api

import (
	"context"

	"github.com/open-autoglm/autoglm/node/access"
)

// looksMax is how many requests of one tenant that read much, explanations and summaries of failed tasks, a node answers at once. What one of them
// reads has limits of its own.
const looksMax = 4

// look lets a request that reads much begin, or refuses it: 429, with Retry-After. leave ends it.
func (s *Server) look(ctx context.Context) (leave func(), err error) {
	whose := access.From(ctx).Tenant
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.costly[whose] >= looksMax {
		p := overloaded("looksMax", looksMax)
		return nil, p.With("looksMax", "ask again after Retry-After, for one thing at a time")
	}
	if s.costly == nil {
		s.costly = map[string]int{}
	}
	s.costly[whose]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.costly[whose]--; s.costly[whose] == 0 {
			delete(s.costly, whose)
		}
	}, nil
}
