package trial

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// report is the figures of a run, as -o json prints them. Times are seconds.
type report struct {
	Tasks     int     `json:"tasks"`
	Completed int     `json:"completed"`
	Right     int     `json:"right"`
	Seconds   float64 `json:"seconds"` // first submit to the end of the last task
	PerMinute float64 `json:"tasks_per_minute"`
	Latency   stats   `json:"latency"` // submit to completed
	Run       stats   `json:"run"`     // in the engine
	Jobs      []job   `json:"jobs"`

	Alone          int     `json:"alone_tasks"`
	AloneSeconds   float64 `json:"alone_seconds"`
	AlonePerMinute float64 `json:"alone_tasks_per_minute"`
	AloneLatency   stats   `json:"alone_latency"`
	SameAnswers    int     `json:"alone_same_answers"` // of Alone
	SpeedUp        float64 `json:"speed_up"`
}

type job struct {
	Name    string `json:"job"`
	Tasks   int    `json:"tasks"`
	Right   int    `json:"right"`
	Latency stats  `json:"latency"`
	Run     stats  `json:"run"`
	Alone   stats  `json:"alone"`
}

// stats of a set of durations.
type stats struct {
	Mean float64 `json:"mean"`
	P99  float64 `json:"p99"`
}

// statsOf takes the nearest rank for p99: the largest of fewer than 100.
func statsOf(ds []time.Duration) stats {
	if len(ds) == 0 {
		return stats{}
	}
	slices.Sort(ds)
	var sum time.Duration
	for _, d := range ds {
		sum += d
	}
	rank := (len(ds)*99 + 99) / 100 // ⌈0.99 n⌉, from 1
	return stats{Mean: (sum / time.Duration(len(ds))).Seconds(), P99: ds[rank-1].Seconds()}
}

func newReport(all []outcome, took time.Duration, alone int, aloneTook time.Duration) *report {
	r := &report{Tasks: len(all), Seconds: took.Seconds(), PerMinute: perMinute(len(all), took),
		Alone: alone, AloneSeconds: aloneTook.Seconds(), AlonePerMinute: perMinute(alone, aloneTook)}
	byJob := map[string][]*outcome{}
	var everything []*outcome
	for i := range all {
		o := &all[i]
		everything = append(everything, o)
		byJob[o.Job] = append(byJob[o.Job], o)
		if o.result.State.String() == "completed" {
			r.Completed++
		}
		if o.alone != nil && o.alone.answer == o.result.Answer {
			r.SameAnswers++
		}
	}
	total := jobOf("total", everything)
	r.Right, r.Latency, r.Run, r.AloneLatency = total.Right, total.Latency, total.Run, total.Alone
	if r.AlonePerMinute > 0 {
		r.SpeedUp = r.PerMinute / r.AlonePerMinute
	}
	for name, os := range byJob {
		r.Jobs = append(r.Jobs, jobOf(name, os))
	}
	slices.SortFunc(r.Jobs, func(a, b job) int { return strings.Compare(a.Name, b.Name) })
	return r
}

func perMinute(n int, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) / took.Minutes()
}

func jobOf(name string, os []*outcome) job {
	j := job{Name: name, Tasks: len(os)}
	var latency, run, alone []time.Duration
	for _, o := range os {
		if o.right() {
			j.Right++
		}
		latency, run = append(latency, o.latency()), append(run, o.run())
		if o.alone != nil {
			alone = append(alone, o.alone.took)
		}
	}
	j.Latency, j.Run, j.Alone = statsOf(latency), statsOf(run), statsOf(alone)
	return j
}

func (r *report) print(app *cli.App, o Options) error {
	if app.JSON() {
		return app.PrintJSON(r)
	}
	ms := func(sec float64) string { return cli.Millis(time.Duration(sec * float64(time.Second))) }
	tab := cli.NewTable("JOB", "TASKS>", "RIGHT>", "", "LATENCY mean>", "p99>", "RUN mean>", "p99>", "ALONE mean>", "p99>")
	row := func(j job) {
		tab.Row(j.Name, j.Tasks, j.Right, fmt.Sprintf("%.1f %%", 100*float64(j.Right)/float64(j.Tasks)),
			ms(j.Latency.Mean), ms(j.Latency.P99), ms(j.Run.Mean), ms(j.Run.P99), ms(j.Alone.Mean), ms(j.Alone.P99))
	}
	for _, j := range r.Jobs {
		row(j)
	}
	tab.Rule()
	row(job{"total", r.Tasks, r.Right, r.Latency, r.Run, r.AloneLatency})
	fmt.Fprintln(app.Out)
	if err := tab.Write(app.Out); err != nil {
		return err
	}
	fmt.Fprint(app.Out, "\nLATENCY is from submit to completed, waiting included: all tasks were submitted at once. RUN is the time in the\n"+
		"engine, beside others. ALONE is the same engine with one request at a time.\n\n")
	sum := cli.NewTable("", "TASKS>", "SECONDS>", "TASKS/MIN>")
	sum.Row("through the node, durable and batched", r.Tasks, fmt.Sprintf("%.2f", r.Seconds), fmt.Sprintf("%.0f", r.PerMinute))
	sum.Row("one worker, one request at a time", r.Alone, fmt.Sprintf("%.2f", r.AloneSeconds), fmt.Sprintf("%.0f", r.AlonePerMinute))
	if err := sum.Write(app.Out); err != nil {
		return err
	}
	fmt.Fprintf(app.Out, "\n%d of %d completed, %d right (%.1f %%), %.1f times as fast as one at a time; %d of %d answers are the same both ways.\n",
		r.Completed, r.Tasks, r.Right, 100*float64(r.Right)/float64(r.Tasks), r.SpeedUp, r.SameAnswers, r.Alone)
	if o.Out != "" {
		fmt.Fprintf(app.Out, "Each task and its answer are in %s.\n", o.Out)
	}
	return nil
}

// line is one task in the results file.
type line struct {
	ID             string  `json:"task_id"`
	Job            string  `json:"job"`
	State          string  `json:"state"`
	Prompt         string  `json:"prompt"`
	Answer         string  `json:"answer"`
	Expected       string  `json:"expected"`
	Right          bool    `json:"right"`
	Error          string  `json:"error,omitempty"`
	Attempts       uint32  `json:"attempts"`
	LatencySeconds float64 `json:"latency_seconds"`
	RunSeconds     float64 `json:"run_seconds"`
	AloneAnswer    *string `json:"alone_answer,omitempty"`
	AloneSeconds   float64 `json:"alone_seconds,omitempty"`
}

func writeResults(path string, all []outcome) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range all {
		o := &all[i]
		l := line{ID: o.Spec.ID, Job: o.Job, State: o.result.State.String(), Prompt: o.Spec.Prompt, Answer: o.result.Answer, Expected: o.Expected,
			Right: o.right(), Attempts: o.result.Attempt, LatencySeconds: o.latency().Seconds(), RunSeconds: o.result.RunSeconds}
		if o.result.Error != nil {
			l.Error = o.result.Error.Message
		}
		if o.alone != nil {
			l.AloneAnswer, l.AloneSeconds = &o.alone.answer, o.alone.took.Seconds()
		}
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return w.Flush()
}
