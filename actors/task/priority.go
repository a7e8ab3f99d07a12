package task

import (
	"encoding/json"
	"strconv"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Priority is a number from 0 to PriorityMax. A person may write a word for it: it is read as its number, and kept, sent and shown as
// one, so that only the node that reads the word needs to know it.
type Priority int

// What the words stand for. There is room on both sides: 0 and 1 go before all that is high, 9 after all that is low.
const (
	High   Priority = 2
	Normal Priority = PriorityDefault
	Low    Priority = 8
)

// PriorityWords are the words, the first one runs first.
var PriorityWords = []string{"high", "normal", "low"}

var priorityWord = map[string]Priority{"high": High, "normal": Normal, "low": Low}

const priorityForms = "use high, normal or low, or a number from 0 (first) to 9 (last)"

// ParsePriority reads a word or a number.
func ParsePriority(s string) (Priority, error) {
	if p, ok := priorityWord[s]; ok {
		return p, nil
	}
	n, err := strconv.Atoi(s)
	p := Priority(n)
	if err != nil || !p.Valid() {
		return 0, fault.New(fault.Invalid, "task.priority", "priority", "is %.40q: %s", s, priorityForms)
	}
	return p, nil
}

// Valid tells whether there is such a priority.
func (p Priority) Valid() bool { return p >= 0 && p <= PriorityMax }

// Check is Valid, as an error that says what is right.
func (p Priority) Check() error {
	if !p.Valid() {
		return fault.New(fault.Invalid, "task.priority", "priority", "is %d: %s", p, priorityForms)
	}
	return nil
}

// UnmarshalJSON takes a number, which Check is for, or a word.
func (p *Priority) UnmarshalJSON(b []byte) error {
	var n int
	if json.Unmarshal(b, &n) == nil {
		*p = Priority(n)
		return nil
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return fault.New(fault.Invalid, "task.priority", "priority", "is %.40s: %s", b, priorityForms)
	}
	v, ok := priorityWord[s]
	if !ok {
		return fault.New(fault.Invalid, "task.priority", "priority", "is %.40q: %s", s, priorityForms)
	}
	*p = v
	return nil
}

// String is the number.
func (p *Priority) String() string {
	if p == nil {
		return ""
	}
	return strconv.Itoa(int(*p))
}

// Set reads what stands behind a flag.
func (p *Priority) Set(s string) (err error) {
	*p, err = ParsePriority(s)
	return err
}

// Type is what the help calls it.
func (p *Priority) Type() string { return "priority" }
