package batch

import (
	"math"
	"slices"
)

// Part holds some engines together to a part of what they and others are given: a new version of a model that is tried beside the one of
// before. Sent again it changes the part; with a Percent of 100 or more, it lifts it.
type Part struct {
	Engines []string // names
	Of      []string // names of the others
	Percent int      // 1 to 99 of what all of them are given, at most; a first work is given in any case
}

// partOwed is of how many works to the others those engines may be owed their part; at least partOwedMin works. What they do not take in
// time is lost to them: after an outage they are not given all that came in between at once.
const (
	partOwed    = 256
	partOwedMin = 16
)

// part is what was given since a Part came. It is a bound and no promise: others that are faster are given more.
type part struct {
	Part
	took   uint64
	others uint64
}

// owed is how many works its engines may be given for what the others were.
func (p *part) owed() int { return int(p.others)*p.Percent/(100-p.Percent) - int(p.took) }

// alone tells that none of the others takes anything.
func (p *part) alone(offers func(engine string) bool) bool { return !slices.ContainsFunc(p.Of, offers) }

// parts is every Part that is not lifted. It is pure.
type parts []*part

// set begins, changes, or lifts one.
func (ps *parts) set(m Part) {
	i := slices.IndexFunc(*ps, func(p *part) bool { return slices.Equal(p.Engines, m.Engines) })
	switch {
	case m.Percent >= 100 && i >= 0:
		*ps = slices.Delete(*ps, i, i+1)
	case m.Percent >= 100:
	case i >= 0:
		*(*ps)[i] = part{Part: m} // counted anew: a larger part is not owed for what was
	default:
		*ps = append(*ps, &part{Part: m})
	}
}

// gave counts n works that an engine was given, where offers says which engines take something.
func (ps parts) gave(engine string, n int, offers func(engine string) bool) {
	for _, p := range ps {
		switch {
		case slices.Contains(p.Of, engine):
			p.others += uint64(n)
			if most := max(partOwedMin, partOwed*p.Percent/(100-p.Percent)); p.owed() > most {
				p.others = (p.took + uint64(most)) * uint64(100-p.Percent) / uint64(p.Percent)
			}
		case slices.Contains(p.Engines, engine) && !p.alone(offers): // else it is no part of anything, and not to be made up for
			p.took += uint64(n)
		}
	}
}

// room is how many works an engine may be given, where coming says how many each engine is about to get.
func (ps parts) room(engine string, coming func(engine string) int, offers func(engine string) bool) int {
	room := math.MaxInt
	for _, p := range ps {
		if !slices.Contains(p.Engines, engine) || p.alone(offers) {
			continue
		}
		n := p.owed() + 1
		for _, e := range p.Engines {
			n -= coming(e)
		}
		room = min(room, max(n, 0))
	}
	return room
}
