package persistence

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestTransferSaysWhatHappened: it is done when the lead was seen to move, and a lead that stays is an error.
func TestTransferSaysWhatHappened(t *testing.T) {
	c := formed(t, 3, Options{Shards: 1})
	l := c.leader(0)
	other, third := c.nodes[1], c.nodes[2]
	if l != c.nodes[0] {
		l, other, third = c.nodes[0], l, c.nodes[2]
		c.handTo(0, l)
	}
	to := other.group(0).Self
	c.eventually(func() bool { // a busy machine may lose a lead by itself
		lead := c.leader(0)
		if lead == other {
			return true
		}
		err := lead.s.Transfer(within(t), 0, to)
		if err == nil {
			leader, _ := lead.s.leads.leader(0)
			require.Equal(t, to, leader, "seen to move when it returns")
			require.Nil(t, lead.s.leads.leading(0))
		}
		return err == nil
	}, "the lead moves")

	lead := c.leader(0)
	gone := third
	if lead == third {
		gone = other
	}
	to = gone.group(0).Self
	gone.close()
	err := lead.s.Transfer(within(t), 0, to)
	require.Error(t, err, "nobody is there to take it")
	require.Contains(t, []fault.Kind{fault.Timeout, fault.Unavailable}, kind(err))
	leader, _ := lead.s.leads.leader(0)
	require.NotEqual(t, to, leader)

	lead = c.leader(0)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, fault.Timeout, kind(lead.s.Transfer(ended, 0, to)))
}
