package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// plainEvery is how often progress is told where there is no terminal.
const plainEvery = 5 * time.Second

// Progress shows how far a long step came: a bar on a terminal, else a line now and then.
// It is safe for many goroutines.
type Progress struct {
	w     io.Writer
	label string
	total int64 // 0 or less: not known

	mu    sync.Mutex
	bar   *progressbar.ProgressBar // nil without a terminal
	n     int64
	begun time.Time
	told  time.Time
}

// NewProgress starts a step; total of 0 is not known. Nothing is shown with -o json.
func (a *App) NewProgress(label string, total int64) *Progress {
	p := &Progress{w: a.Err, label: label, total: total, begun: time.Now()}
	if a.JSON() {
		p.w = io.Discard
	}
	if IsTTY(p.w) {
		shown := total
		if shown <= 0 {
			shown = -1
		}
		p.bar = progressbar.NewOptions64(shown, progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(label),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(total > 0))
	}
	return p
}

// Add counts n more.
func (p *Progress) Add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n += int64(n)
	if p.bar != nil {
		_ = p.bar.Set64(p.n) // it is decoration: an error changes nothing
		return
	}
	if now := time.Now(); now.Sub(p.told) >= plainEvery && now.Sub(p.begun) >= plainEvery {
		p.told = now
		fmt.Fprintln(p.w, p.line())
	}
}

// Done ends the step and tells its last line.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintln(p.w, p.line())
}

func (p *Progress) line() string {
	took := time.Since(p.begun)
	s := fmt.Sprintf("%s: %d", p.label, p.n)
	if p.total > 0 {
		s = fmt.Sprintf("%s: %d of %d", p.label, p.n, p.total)
	}
	if took >= time.Second {
		s += fmt.Sprintf(" in %v, %.0f/s", took.Round(time.Second), float64(p.n)/took.Seconds())
	}
	return s
}
