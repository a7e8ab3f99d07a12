package schedule

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	require.NoError(t, err, s)
	return at
}

// TestWhatAnExpressionMeans: in Berlin the clocks go from 2:00 to 3:00 on 29 March 2026 and from 3:00 back to 2:00 on 25 October.
func TestWhatAnExpressionMeans(t *testing.T) {
	for _, c := range []struct {
		name, cron, zone, after string
		want                    []string
	}{
		{"a time of day", "30 2 * * *", "", "2026-03-04T00:00:00Z", []string{"2026-03-04T02:30:00Z", "2026-03-05T02:30:00Z"}},
		{"strictly after", "30 2 * * *", "UTC", "2026-03-04T02:30:00Z", []string{"2026-03-05T02:30:00Z"}},
		{"within a second", "* * * * *", "UTC", "2026-03-04T02:29:59.5Z", []string{"2026-03-04T02:30:00Z", "2026-03-04T02:31:00Z"}},
		{"working days", "0 9 * * 1-5", "UTC", "2026-03-06T10:00:00Z", []string{"2026-03-09T09:00:00Z", "2026-03-10T09:00:00Z"}},
		{"7 is Sunday", "0 9 * * 7", "UTC", "2026-03-06T10:00:00Z", []string{"2026-03-08T09:00:00Z", "2026-03-15T09:00:00Z"}},
		{"up to 7", "0 9 * * 6-7,1", "UTC", "2026-03-06T10:00:00Z", []string{"2026-03-07T09:00:00Z", "2026-03-08T09:00:00Z", "2026-03-09T09:00:00Z", "2026-03-14T09:00:00Z"}},
		{"every third day up to 7", "0 9 * * 1-7/3", "UTC", "2026-03-06T10:00:00Z", []string{"2026-03-08T09:00:00Z", "2026-03-09T09:00:00Z", "2026-03-12T09:00:00Z"}},
		{"every second day up to 7 leaves it out", "0 9 * * 2-7/2", "UTC", "2026-03-06T10:00:00Z", []string{"2026-03-07T09:00:00Z", "2026-03-10T09:00:00Z"}},
		{"the names", "@monthly", "UTC", "2026-03-06T10:00:00Z", []string{"2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"}},
		{"a leap day", "0 0 29 2 *", "UTC", "2026-03-06T10:00:00Z", []string{"2028-02-29T00:00:00Z"}},
		{"a zone", "0 9 * * *", "Asia/Kolkata", "2026-03-06T10:00:00Z", []string{"2026-03-07T03:30:00Z"}},
		{"winter and summer", "0 9 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", []string{"2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z"}},

		{"forward: what is left out comes when the clocks have been put", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		{"forward: several that are left out come once", "*/15 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		{"forward: every hour by hours that pass", "30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", []string{"2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"}},
		{"forward: even hours do not count", "0 */2 * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", []string{"2026-03-29T02:00:00Z"}}, // 4:00: there is no 2:00
		{"back: what there is twice comes the first time", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"back: and not again from in between", "30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", []string{"2026-10-26T01:30:00Z"}},
		{"back: three times of the first of the two hours", "*/20 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:00:00Z", "2026-10-25T00:20:00Z", "2026-10-25T00:40:00Z", "2026-10-26T01:00:00Z"}},
		{"back: every hour by hours that pass", "30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}},
		{"back: @hourly too", "@hourly", "Europe/Berlin", "2026-10-24T23:30:00Z", []string{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"midnight is left out", "@daily", "America/Asuncion", "2023-09-30T12:00:00Z", []string{"2023-10-01T04:00:00Z", "2023-10-02T03:00:00Z"}},
		{"half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", []string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}}, // 2:00 to 2:30
		{"a whole day is left out", "0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", []string{"2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := Parse(c.cron, c.zone)
			require.NoError(t, err)
			at := instant(t, c.after)
			for _, want := range c.want {
				at = table.Next(at)
				require.Equal(t, instant(t, want).UTC(), at)
			}
		})
	}
}

// What is wrong is told by its field, in a user's words.
func TestWhatIsWrongWithAnExpression(t *testing.T) {
	for expr, want := range map[string]string{
		"61 * * * *":   `the minute is "61": it may be 0 to 59`,
		"0 x * * *":    `the hour is "x": it may be 0 to 23`,
		"0 0 * * 8":    `the day of week is "8": it may be 0 to 7 (0 and 7 are Sunday)`,
		"0 0 * * 7-8":  `the day of week is "7-8"`,
		"0 0 * FOO *":  `the month is "FOO"`,
		"0 0 * * 1-7/": `the day of week is "1-7/"`,
		"0 0 * *":      "has 4 fields instead of five",
		"@fortnightly": "there is no such name",
	} {
		_, err := Parse(expr, "")
		require.ErrorContains(t, err, want)
		require.Equal(t, fault.Invalid, fault.KindOf(err))
	}
}

func TestWhatIsNoExpression(t *testing.T) {
	for _, c := range []struct{ cron, zone, key string }{
		{"", "", "cron"}, {"* * * *", "", "cron"}, {"* * * * * *", "", "cron"}, {"60 * * * *", "", "cron"}, {"@every 5m", "", "cron"}, {"@reboot", "", "cron"},
		{"TZ=UTC * * * * *", "", "cron"}, {"CRON_TZ=", "", "cron"}, {"* * * * *", "Mars/Olympus", "zone"}, {"* * * * *", "Local", "zone"}, {"* * * * *", "../etc", "zone"},
	} {
		_, err := Parse(c.cron, c.zone)
		require.Equal(t, fault.Invalid, fault.KindOf(err), c.cron)
		require.Contains(t, err.Error(), c.key)
	}
}

// TestTimesGoForward, whatever the zone does: each is after the one before, and the same from wherever one starts in between.
func TestTimesGoForward(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cron := rapid.SampledFrom([]string{"*/7 * * * *", "30 2 * * *", "*/20 0-3 * * *", "0 */3 * * *", "@daily", "15,45 1,2 * * 0", "@hourly"}).Draw(rt, "cron")
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Asuncion", "Africa/Casablanca", "Asia/Tehran"}).Draw(rt, "zone")
		table, err := Parse(cron, zone)
		require.NoError(rt, err)
		from := time.Unix(rapid.Int64Range(1_500_000_000, 1_900_000_000).Draw(rt, "from"), 0).UTC()
		first := table.Next(from)
		require.True(rt, first.After(from))
		between := from.Add(time.Duration(rapid.Int64Range(0, int64(first.Sub(from)-1)).Draw(rt, "between")))
		require.Equal(rt, first, table.Next(between), "nothing is between %v and %v", from, first)
		require.True(rt, table.Next(first).After(first))
	})
}

func FuzzParse(f *testing.F) {
	f.Add("30 2 * * 1-5", "Europe/Berlin")
	f.Add("@daily", "")
	f.Add("TZ= x", "UTC")
	at := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, cron, zone string) {
		table, err := Parse(cron, zone)
		if err != nil {
			require.Equal(t, fault.Invalid, fault.KindOf(err))
			return
		}
		if next := table.Next(at); !next.IsZero() {
			require.True(t, next.After(at))
		}
	})
}
