package quota

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits are what a tenant, or its tasks of some priorities, may have; 0 is no limit.
type Limits struct {
	Running           int `json:"running,omitempty" yaml:"running,omitempty" doc:"Tasks at engines at once, over the whole cluster; more wait." minimum:"0"`
	TokensPerMinute   int `json:"tokens_per_minute,omitempty" yaml:"tokens_per_minute,omitempty" doc:"Tokens of prompts and answers; tasks wait when they are used up." minimum:"0"`
	RequestsPerMinute int `json:"requests_per_minute,omitempty" yaml:"requests_per_minute,omitempty" doc:"Tasks submitted one by one or in bulk; more are refused with 429. Lines of a batch do not count." minimum:"0"`
	Queued            int `json:"queued,omitempty" yaml:"queued,omitempty" doc:"Tasks that have not ended; more are refused with 429. Lines of a batch count, but are not refused." minimum:"0"`
	Bytes             int `json:"bytes,omitempty" yaml:"bytes,omitempty" doc:"Bytes that are kept: prompts and results of tasks until they are deleted, and files. More tasks and files are refused with 429; results of tasks that were taken, and lines of a batch, count and are not." minimum:"0"`
}

// Class limits the tasks of some priorities, beside what limits all of the tenant's.
type Class struct {
	Priorities      string `json:"priorities" yaml:"priorities" doc:"Like 0-2, or 9, or words: high-normal. A word stands for its number: high 2, normal 5, low 8."`
	Running         int    `json:"running,omitempty" yaml:"running,omitempty" minimum:"0"`
	TokensPerMinute int    `json:"tokens_per_minute,omitempty" yaml:"tokens_per_minute,omitempty" minimum:"0"`
}

// Terms is the quota of one tenant.
type Terms struct {
	Tenant  string  `json:"tenant" yaml:"tenant"`
	Weight  float64 `json:"weight,omitempty" yaml:"weight,omitempty" doc:"Its share of the engines against others' that have work waiting; 0: as scheduling.weights says, else 1." minimum:"0"`
	Hard    Limits  `json:"hard,omitzero" yaml:"hard,omitempty"`
	Classes []Class `json:"classes,omitempty" yaml:"classes,omitempty"`
	Over    string  `json:"over,omitempty" yaml:"over,omitempty" doc:"What becomes of a new task while running or tokens_per_minute are used up: queue (the default), or reject, with 429." enum:"queue,reject"`
}

// Values of Over.
const (
	Queue  = "queue"
	Reject = "reject"
)

const (
	classesMax = 10
	numberMax  = 1_000_000_000
	bytesMax   = 1 << 53
	weightMin  = 0.001
	weightMax  = 1000
	// TermsMax is how many tenants may have quotas.
	TermsMax = 4096
)

// Check refuses what no quota may be.
func (s *Terms) Check() error {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Invalid, "quota.check", field, format, args...)
	}
	if err := tenant.Check(s.Tenant); err != nil {
		return err
	}
	for field, n := range map[string]int{"hard.running": s.Hard.Running, "hard.tokens_per_minute": s.Hard.TokensPerMinute,
		"hard.requests_per_minute": s.Hard.RequestsPerMinute, "hard.queued": s.Hard.Queued} {
		if n < 0 || n > numberMax {
			return bad(field, "is %d: use 0 (no limit) to %d", n, numberMax)
		}
	}
	if s.Hard.Bytes < 0 || s.Hard.Bytes > bytesMax {
		return bad("hard.bytes", "is %d: use 0 (no limit) to %d", s.Hard.Bytes, bytesMax)
	}
	switch {
	case s.Weight != 0 && !(s.Weight >= weightMin && s.Weight <= weightMax):
		return bad("weight", "is %g: use %g to %d, or 0 for the setting's", s.Weight, weightMin, weightMax)
	case !slices.Contains([]string{"", Queue, Reject}, s.Over):
		return bad("over", "is %.20q: use %s or %s", s.Over, Queue, Reject)
	case len(s.Classes) > classesMax:
		return bad("classes", "has %d entries, the limit is %d", len(s.Classes), classesMax)
	}
	for i, c := range s.Classes {
		if _, _, err := c.span(); err != nil {
			return bad(fmt.Sprintf("classes[%d].priorities", i), "is %.20q: write a priority of 0 to %d or high, normal or low, or two like 0-2", c.Priorities, task.PriorityMax)
		}
		if c.Running < 0 || c.Running > numberMax || c.TokensPerMinute < 0 || c.TokensPerMinute > numberMax {
			return bad(fmt.Sprintf("classes[%d]", i), "has a limit out of 0 to %d", numberMax)
		}
		if slices.ContainsFunc(s.Classes[:i], func(o Class) bool { return o.Priorities == c.Priorities }) {
			return bad(fmt.Sprintf("classes[%d].priorities", i), "is %s, as another's: put both limits into one", c.Priorities)
		}
	}
	return nil
}

// Has tells whether a priority is in the class.
func (c Class) Has(priority int) bool {
	from, to, err := c.span()
	return err == nil && from <= priority && priority <= to
}

// span returns the first and last priority of a class.
func (c Class) span() (from, to int, err error) {
	a, b, two := strings.Cut(c.Priorities, "-")
	if !two {
		b = a
	}
	first, err := task.ParsePriority(a)
	if err != nil {
		return 0, 0, err
	}
	last, err := task.ParsePriority(b)
	if err == nil && first > last {
		err = fmt.Errorf("out of range")
	}
	return int(first), int(last), err
}

// Numbered is the terms with classes that name priorities by numbers, as they are kept: a node of the version before knows no words.
func (s Terms) Numbered() Terms {
	s.Classes = slices.Clone(s.Classes)
	for i, c := range s.Classes {
		from, to, err := c.span()
		switch {
		case err != nil || !strings.ContainsFunc(c.Priorities, unicode.IsLetter): // Check says what is wrong
		case from == to:
			s.Classes[i].Priorities = strconv.Itoa(from)
		default:
			s.Classes[i].Priorities = fmt.Sprintf("%d-%d", from, to)
		}
	}
	return s
}

// String is a line for people.
func (s Terms) String() string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", what, n))
		}
	}
	if s.Weight > 0 {
		parts = append(parts, fmt.Sprintf("weight %g", s.Weight))
	}
	add(s.Hard.Running, "running")
	add(s.Hard.TokensPerMinute, "tokens a minute")
	add(s.Hard.RequestsPerMinute, "requests a minute")
	add(s.Hard.Queued, "queued")
	add(s.Hard.Bytes, "bytes")
	for _, c := range s.Classes {
		parts = append(parts, c.String())
	}
	if s.Over == Reject {
		parts = append(parts, "over: reject")
	}
	if len(parts) == 0 {
		return "no limit"
	}
	return strings.Join(parts, ", ")
}

// String is a line for people.
func (c Class) String() string {
	text := "priority " + c.Priorities + ":"
	if c.Running > 0 {
		text += fmt.Sprintf(" running %d", c.Running)
	}
	if c.TokensPerMinute > 0 {
		text += fmt.Sprintf(" tokens a minute %d", c.TokensPerMinute)
	}
	return text
}

// account is one thing that is lent: a tenant's, or of one of its classes.
type account struct {
	Tenant string
	Class  string // Priorities; "" for all
}

func (a account) String() string { return a.Tenant + "/" + a.Class }

func parseAccount(s string) account {
	t, c, _ := strings.Cut(s, "/")
	return account{t, c}
}

// accounts returns the limits of a quota by account.
func (s *Terms) accounts() map[account]Limits {
	all := map[account]Limits{}
	if s.Hard != (Limits{}) {
		all[account{Tenant: s.Tenant}] = s.Hard
	}
	for _, c := range s.Classes {
		all[account{s.Tenant, c.Priorities}] = Limits{Running: c.Running, TokensPerMinute: c.TokensPerMinute}
	}
	return all
}

// of returns the accounts that a task of a priority is charged to.
func (s *Terms) of(priority int) (as []account) {
	if s.Hard != (Limits{}) {
		as = append(as, account{Tenant: s.Tenant})
	}
	for _, c := range s.Classes {
		if c.Has(priority) {
			as = append(as, account{s.Tenant, c.Priorities})
		}
	}
	return as
}
