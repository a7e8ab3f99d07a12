package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Can is what a run's machine allows.
type Can struct{ Cut, Fill bool }

// Schedule picks which faults happen, in order: every one that is possible once before any comes twice, so that a
// short run meets many kinds. names, when not empty, are the only ones that may happen; more are faults beside Faults().
func Schedule(seed uint64, rounds, nodes int, can Can, names []string, more ...Fault) ([]Fault, error) {
	all := append(Faults(), more...)
	var possible []Fault
	for _, f := range all {
		if len(names) > 0 && !slices.Contains(names, f.Name) || nodes < f.Nodes || f.Cuts && !can.Cut || f.Disks && !can.Fill {
			continue
		}
		possible = append(possible, f)
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(f Fault) bool { return f.Name == name }) {
			return nil, fmt.Errorf("there is no fault %q: use %s", name, strings.Join(faultNames(all), ", "))
		}
	}
	if len(possible) == 0 {
		return nil, fmt.Errorf("none of the faults %v is possible with %d nodes and %+v", names, nodes, can)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	var order []Fault
	for len(order) < rounds {
		for _, i := range r.Perm(len(possible)) {
			order = append(order, possible[i])
		}
	}
	return order[:rounds], nil
}

func faultNames(fs []Fault) (names []string) {
	for _, f := range fs {
		names = append(names, f.Name)
	}
	return names
}
