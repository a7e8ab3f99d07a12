package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/sample"
)

// failuresMax is how many rounds in a row may fail before the engine reports itself broken.
const failuresMax = 3

// matchingMax is how long one answer may keep all others waiting for its grammar, over its whole length. A grammar of
// the usual kind takes microseconds a token; one that can be read in thousands of ways takes seconds.
const matchingMax = 10 * time.Second

// triesMax is how many tokens are tried on a grammar before it is asked about all of them.
const triesMax = 8

// loop is the state of the engine's goroutine; nothing else touches it.
type loop struct {
	slots    []slot
	admitted uint64 // requests given a slot so far
	failures int    // rounds failed in a row
	scratch  sample.Scratch
	batch    []Token
	rows     []row
}

// slot holds one answer, or what is left in the cache of the last one.
type slot struct {
	job     *job    // nil: free
	order   uint64  // of admission
	tokens  []int32 // prompt, then what was picked
	fed     int     // tokens[:fed] are in the model's cache; fed <= len(tokens)
	parked  bool
	sampler *sample.Sampler
	text    text

	matching time.Duration // spent in the job's Matcher; <= matchingMax and what one call takes
}

// decodeNice is how far decoding steps back when the machine is full: the node, which accepts tasks and records answers,
// needs little and must not wait for its own workers.
const decodeNice = 5

// row says whose next token the scores of a batch's row are for.
type row struct{ slot, at int }

func (e *Engine) run() {
	// llama.cpp's memory stays with one core's caches, and thread-locals with one thread. The thread ends with this
	// goroutine, because it is not unlocked: nothing else should run at its priority.
	runtime.LockOSThread()
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, decodeNice) // of this thread, on Linux; without it only latency suffers
	defer close(e.stopped)
	for {
		idle, draining := e.admit()
		switch {
		case e.cut.Load():
			e.cutAll()
			return
		case !idle:
			e.round()
		case draining:
			return
		default:
			<-e.wake
		}
	}
}

// admit moves waiting jobs into free slots and does at most one embedding. It ends jobs whose caller is gone.
func (e *Engine) admit() (idle, draining bool) {
	for i := range e.loop.slots {
		if s := &e.loop.slots[i]; s.job != nil && s.job.ctx.Err() != nil {
			e.release(i, context.Cause(s.job.ctx))
		}
	}
	embedding := e.take(func(j *job) bool { return j.embed != nil })
	if embedding != nil {
		e.embed(embedding)
	}
	for e.counts.running.Load() < int64(len(e.loop.slots)) {
		j := e.take(func(j *job) bool { return j.embed == nil })
		if j == nil {
			break
		}
		e.place(j)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts.running.Load() == 0 && len(e.waiting) == 0, e.draining
}

// take removes the oldest waiting job that is wanted.
func (e *Engine) take(want func(*job) bool) *job {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.waiting, want)
	if i < 0 {
		return nil
	}
	j := e.waiting[i]
	e.waiting = slices.Delete(e.waiting, i, i+1)
	return j
}

func (e *Engine) embed(j *job) {
	vector, err := e.backend.Embed(j.Prompt)
	if err == nil {
		e.counts.embedded.Add(int64(len(j.Prompt)))
		j.embed <- embedded{vector: vector}
	} else {
		e.counts.failed.Add(1)
	}
	j.end(err)
}

// place gives a job the free slot whose cache begins most like its prompt, and of equal ones the longest unused.
func (e *Engine) place(j *job) {
	best, same := -1, -1
	for i := range e.loop.slots {
		s := &e.loop.slots[i]
		if s.job != nil {
			continue
		}
		n := min(shared(s.tokens[:s.fed], j.Prompt), len(j.Prompt)-1) // the last token's scores are needed anew
		if n > same || (n == same && s.order < e.loop.slots[best].order) {
			best, same = i, n
		}
	}
	s := &e.loop.slots[best]
	if s.fed > same {
		e.backend.Drop(best, same)
	}
	e.loop.admitted++
	*s = slot{
		job: j, order: e.loop.admitted, fed: same,
		tokens:  append(make([]int32, 0, len(j.Prompt)+min(j.TokensMax, 256)), j.Prompt...),
		sampler: sample.New(j.Params, &e.loop.scratch), text: text{stops: j.Stops},
	}
	e.counts.running.Add(1)
	e.counts.cached.Add(int64(same))
	j.stream.cached(same)
}

// release frees a slot; its tokens stay in the cache for a prompt that begins the same.
func (e *Engine) release(i int, err error) {
	s := &e.loop.slots[i]
	if err == nil {
		e.counts.finished.Add(1)
	} else {
		e.counts.failed.Add(1)
	}
	s.job.end(err)
	*s = slot{order: s.order, tokens: s.tokens[:s.fed], fed: s.fed}
	e.counts.running.Add(-1)
	for k := range e.loop.slots { // there is room again
		e.loop.slots[k].parked = false
	}
}

func (e *Engine) cutAll() {
	for i := range e.loop.slots {
		if e.loop.slots[i].job != nil {
			e.release(i, ErrDraining)
		}
	}
	for j := e.take(func(*job) bool { return true }); j != nil; j = e.take(func(*job) bool { return true }) {
		e.counts.failed.Add(1)
		j.end(ErrDraining)
	}
}

// round computes one batch and picks the tokens it yields. A batch for which there is no room is tried smaller; when
// not even one token fits, the youngest answer makes room and is computed again later.
func (e *Engine) round() {
	limit := e.config.Batch
	for {
		parts := plan(e.sequences(), limit)
		if len(parts) == 0 {
			return // all that ran was parked or failed
		}
		e.fill(parts)
		err := e.backend.Decode(e.loop.batch)
		switch {
		case err == nil:
			e.loop.failures = 0
			e.advance(parts)
			return
		case !errors.Is(err, ErrNoRoom):
			e.fail(parts, err)
			return
		case e.forgetFree():
		case len(e.loop.batch) > 1:
			limit = len(e.loop.batch) / 2
		default:
			e.park(parts[0].slot)
		}
	}
}

func (e *Engine) sequences() []sequence {
	var all []sequence
	for i := range e.loop.slots {
		if s := &e.loop.slots[i]; s.job != nil {
			all = append(all, sequence{slot: i, order: s.order, todo: len(s.tokens) - s.fed, parked: s.parked})
		}
	}
	return all
}

// fill writes the batch of a plan and notes which rows yield a token.
func (e *Engine) fill(parts []part) {
	l := &e.loop
	l.batch, l.rows = l.batch[:0], l.rows[:0]
	for _, p := range parts {
		s := &l.slots[p.slot]
		for k := range p.n {
			at := s.fed + k
			l.batch = append(l.batch, Token{ID: s.tokens[at], Pos: int32(at), Slot: int32(p.slot)})
		}
		if p.last {
			l.batch[len(l.batch)-1].Logits = true
			l.rows = append(l.rows, row{slot: p.slot, at: len(l.batch) - 1})
		}
	}
}

func (e *Engine) advance(parts []part) {
	e.counts.rounds.Add(1)
	for _, p := range parts {
		s := &e.loop.slots[p.slot]
		e.counts.prompt.Add(int64(max(0, min(s.fed+p.n, len(s.job.Prompt))-s.fed)))
		s.fed += p.n
	}
	for _, r := range e.loop.rows {
		stream := e.loop.slots[r.slot].job.stream
		more, err := e.step(&e.loop.slots[r.slot], r.at)
		if more.Finish != "" || err != nil {
			e.release(r.slot, err) // first, so that whoever has an answer finds its slot free
		}
		if err == nil {
			stream.add(more)
		}
	}
}

// step picks one answer's next token and returns what it adds.
func (e *Engine) step(s *slot, at int) (more Answer, err error) {
	token, chance, err := e.pick(s, at)
	if err != nil {
		return more, err
	}
	s.tokens = append(s.tokens, token)
	e.counts.answer.Add(1)
	more.Tokens = len(s.tokens) - len(s.job.Prompt)
	if chance != nil {
		more.LogProbs = []LogProb{*chance}
	}
	if e.vocab.Kinds[token] == Ends {
		more.Text, more.Finish = s.text.flush(), Stop
		return more, nil
	}
	if s.job.Matcher != nil {
		began := e.config.Clock()
		s.job.Matcher.Accept(token)
		s.matching += e.config.Clock().Sub(began)
	}
	show, stopped := s.text.push(e.vocab.Pieces[token])
	more.Text = show
	switch {
	case stopped:
		more.Finish = Stop
	case more.Tokens >= s.job.TokensMax:
		more.Text, more.Finish = show+s.text.flush(), Length
	}
	return more, nil
}

// pick chooses a token. With a grammar free choices are tried first: most of the time the first is allowed, and asking
// about one token is a thousand times cheaper than about all.
func (e *Engine) pick(s *slot, at int) (token int32, chance *LogProb, err error) {
	scores := e.backend.Logits(at)
	if len(scores) != len(e.vocab.Pieces) {
		return 0, nil, fmt.Errorf("engine.pick: %d scores for %d tokens", len(scores), len(e.vocab.Pieces))
	}
	var free []float32
	if s.job.LogProbs >= 0 {
		free = slices.Clone(scores)
	}
	ban(scores, e.banned)
	token = s.sampler.Pick(scores)
	if s.job.Matcher != nil && token >= 0 {
		if token, err = e.match(s, scores, token); err != nil {
			return 0, nil, err
		}
	}
	if token < 0 {
		return 0, nil, errors.New("engine.pick: the model gave no usable scores: its file may be damaged")
	}
	if free == nil {
		return token, nil, nil
	}
	of, likeliest := sample.LogProbs(free, token, s.job.LogProbs)
	return token, &LogProb{Scored: sample.Scored{Token: token, Log: of}, Likeliest: likeliest}, nil
}

// match returns the token if the grammar allows it, else another one.
func (e *Engine) match(s *slot, scores []float32, token int32) (int32, error) {
	if s.matching > matchingMax {
		return 0, ErrSlow
	}
	began, m := e.config.Clock(), s.job.Matcher
	defer func() { s.matching += e.config.Clock().Sub(began) }()
	for range triesMax { // drawing again without what was refused is drawing among what is allowed
		if e.allows(m, token) {
			return token, nil
		}
		scores[token] = float32(math.Inf(-1))
		if token = s.sampler.Pick(scores); token < 0 {
			return 0, ErrNoToken
		}
	}
	m.Mask(scores)
	if !m.Allows(e.vocab.End) {
		ban(scores, e.ends) // some end tokens are plain text to the matcher
	}
	if token = s.sampler.Pick(scores); token < 0 {
		return 0, ErrNoToken
	}
	return token, nil
}

func (e *Engine) allows(m Matcher, token int32) bool {
	if e.vocab.Kinds[token] == Ends {
		token = e.vocab.End
	}
	return m.Allows(token)
}

func ban(scores []float32, tokens []int32) {
	for _, t := range tokens {
		scores[t] = float32(math.Inf(-1))
	}
}

// forgetFree gives up what free slots still hold, and says whether that was anything.
func (e *Engine) forgetFree() (any bool) {
	for i := range e.loop.slots {
		if s := &e.loop.slots[i]; s.job == nil && s.fed > 0 {
			e.backend.Drop(i, 0)
			s.tokens, s.fed, any = nil, 0, true
		}
	}
	return any
}

// park makes the youngest answer give up its room. If there is none but the one that needs it, that one cannot be.
func (e *Engine) park(alone int) {
	i := victim(e.sequences())
	if i < 0 {
		e.backend.Drop(alone, 0)
		s := &e.loop.slots[alone]
		n := len(s.tokens)
		s.fed = 0
		e.release(alone, fmt.Errorf("engine.round: the model's cache has no room for %d tokens alone: lower --ctx or --slots", n))
		return
	}
	e.backend.Drop(i, 0)
	s := &e.loop.slots[i]
	s.fed, s.parked = 0, true
	e.counts.parked.Add(1)
}

// fail gives up the answers of a batch that the model could not compute; their caches are in an unknown state.
func (e *Engine) fail(parts []part, err error) {
	for _, p := range parts {
		e.backend.Drop(p.slot, 0)
		e.loop.slots[p.slot].fed = 0
		e.release(p.slot, fmt.Errorf("engine.round: %w", err))
	}
	if e.loop.failures++; e.loop.failures == failuresMax {
		select {
		case e.broken <- fmt.Errorf("engine.round: %d rounds failed in a row, the last with: %w", failuresMax, err):
		default:
		}
	}
}
