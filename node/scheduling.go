package node

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/fair"
	"github.com/open-autoglm/autoglm/actors/hedge"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

// The values of scheduling.priorities.
const (
	PrioritiesStrict   = "strict"
	PrioritiesWeighted = "weighted"
)

const (
	ratioMax  = 100
	weightMin = 0.001
	weightMax = 1000
	ageingMin = time.Second
)

// policy is what the settings say to package fair.
func (s SchedConfig) policy() (fair.Policy, error) {
	weights, err := s.weights()
	if err != nil {
		return fair.Policy{}, invalidConfig("scheduling.weights", strings.Join(s.Weights, ","), "%v", err)
	}
	p := fair.Policy{Weight: func(name string) float64 {
		if w, ok := weights[name]; ok {
			return w
		}
		return 1
	}}
	switch {
	case s.Ageing != 0 && s.Ageing < ageingMin:
		return p, invalidConfig("scheduling.ageing", s.Ageing, "use %v or more, or 0s for never", ageingMin)
	case !(s.Ratio > 1 && s.Ratio <= ratioMax):
		return p, invalidConfig("scheduling.ratio", s.Ratio, "use more than 1, and at most %d", ratioMax)
	case s.Priorities == PrioritiesStrict:
		p.Ageing = s.Ageing
	case s.Priorities == PrioritiesWeighted:
		p.Ratio = s.Ratio
	default:
		return p, invalidConfig("scheduling.priorities", s.Priorities, "use %s or %s", PrioritiesStrict, PrioritiesWeighted)
	}
	return p, nil
}

// hedging is what the settings say to package hedge; zero when it is off.
func (s SchedConfig) hedging() (hedge.Rule, error) {
	switch {
	case s.Hedge != 0 && !(s.Hedge >= hedge.FactorMin && s.Hedge <= hedge.FactorMax):
		return hedge.Rule{}, invalidConfig("scheduling.hedge", s.Hedge, "use %v to %d, or 0 for off", hedge.FactorMin, hedge.FactorMax)
	case s.HedgeAfter < 0:
		return hedge.Rule{}, invalidConfig("scheduling.hedge_after", s.HedgeAfter, "use 0s or more")
	case !(s.HedgeShare > 0 && s.HedgeShare <= hedge.PercentMax):
		return hedge.Rule{}, invalidConfig("scheduling.hedge_percent", s.HedgeShare, "use more than 0 and at most %d; scheduling.hedge: 0 turns it off", hedge.PercentMax)
	case s.Hedge == 0:
		return hedge.Rule{}, nil
	}
	return hedge.Rule{Factor: s.Hedge, After: s.HedgeAfter, Percent: s.HedgeShare}, nil
}

func (s SchedConfig) weights() (map[string]float64, error) {
	weights := map[string]float64{}
	for _, text := range s.Weights {
		name, number, _ := strings.Cut(text, "=")
		w, err := strconv.ParseFloat(number, 64)
		switch {
		case err != nil || !(w >= weightMin && w <= weightMax):
			return nil, fmt.Errorf("%q is no share: write NAME=NUMBER, with a number of %g to %d", text, weightMin, weightMax)
		case tenant.Check(name) != nil:
			return nil, fmt.Errorf("%q names no tenant: use a name as autoglm key list shows it", text)
		}
		weights[name] = w
	}
	return weights, nil
}
