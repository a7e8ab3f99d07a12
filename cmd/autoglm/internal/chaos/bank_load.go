package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/node/api/actorclient"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Bounds of the bank's workload.
const (
	accountsMax   = 8   // that clients use at a time
	accountOps    = 160 // with one account, transfers included; then it rests. Far below what a bank.Account remembers of requests
	cashAccounts  = 3   // of accountsMax never meet a transfer: everything about them is known
	transfersMax  = 10  // that are not known to be over: what may happen at any time is what makes a history hard to judge
	transferLooks = 8   // that find nothing, then nobody looks any more
	amountMax     = 400 // cents
	repeatShare   = 15  // of a hundred deposits and withdrawals that were answered are sent again
	hastyShare    = 15  // of a hundred calls are given up after hasteMax, whatever becomes of them
	hasteMax      = 30 * time.Millisecond
	tryMax        = 1500 * time.Millisecond
)

// bankLoad are clients with accounts that all of them use.
type bankLoad struct {
	clients int
	think   time.Duration
	seed    uint64
	began   time.Time
	any     []*actorclient.Client // know all nodes, each begins with another one
	one     []*actorclient.Client // know one node each

	stop context.CancelFunc
	wg   sync.WaitGroup

	mu        sync.Mutex
	accounts  []*subject // the first cashAccounts of them are for cash only
	transfers []*subject
	named     int       // accounts and transfers so far
	ops       []*bankOp // in the order of their returns
	wrong     []string  // at most wrongMax
}

// newBankLoad makes the clients; start lets them begin.
func newBankLoad(peers []Peer, clients int, think time.Duration, seed uint64) (*bankLoad, error) {
	b := &bankLoad{clients: clients, think: think, seed: seed, began: time.Now()}
	for i := range peers {
		urls := []string{}
		for j := range peers {
			urls = append(urls, peers[(i+j)%len(peers)].URL)
		}
		every, err := actorclient.New(urls, actorclient.WithTry(tryMax), actorclient.WithAPIKey(peers[0].Key))
		single, err2 := actorclient.New(urls[:1], actorclient.WithTry(tryMax), actorclient.WithAPIKey(peers[0].Key))
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		b.any, b.one = append(b.any, every), append(b.one, single)
	}
	for range accountsMax {
		b.accounts = append(b.accounts, b.fresh("a", accountOps))
	}
	return b, nil
}

func (b *bankLoad) start() {
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	for i := range b.clients {
		b.wg.Go(func() { b.client(ctx, i) })
	}
}

// Stop waits until every client has its last answer, or gave up on it. It is safe to call twice.
func (b *bankLoad) Stop() {
	b.stop()
	b.wg.Wait()
}

// close lets go of connections.
func (b *bankLoad) close() {
	for i := range b.any {
		b.any[i].Close()
		b.one[i].Close()
	}
}

func (b *bankLoad) now() time.Duration { return time.Since(b.began) }

// fresh names an account or a transfer. b.mu is held, or nobody runs yet.
func (b *bankLoad) fresh(prefix string, left int) *subject {
	b.named++
	return &subject{fmt.Sprintf("%s%d-%x", prefix, b.named, uint32(b.seed)), left}
}

func (b *bankLoad) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.wrong) < wrongMax {
		b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
	}
}

func (b *bankLoad) client(ctx context.Context, number int) {
	r := rand.New(rand.NewPCG(b.seed, uint64(number)+5000))
	for n := 0; ctx.Err() == nil; n++ {
		o := b.next(r, number)
		o.Request = fmt.Sprintf("c%d-%d", number, n)
		// A call under way when the load stops is still waited for: it may have happened.
		limit := callMax
		if r.IntN(100) < hastyShare {
			limit = hasteMax
		}
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		if err := b.ask(asking, b.door(r), o); err != nil {
			b.complain("%v: %v", o, err)
		}
		if o.Outcome == Done && o.Version > 0 && (o.Verb == deposit || o.Verb == withdraw) && r.IntN(100) < repeatShare {
			b.repeat(asking, b.door(r), o)
		}
		cancel()
		if !b.keep(o) {
			b.complain("there are %d ops: a longer run is to be several", OpsMax)
			return
		}
		think := b.think
		if o.Outcome == Unknown {
			think *= patience
		}
		pause := time.NewTimer(time.Duration(r.Int64N(int64(2*think) + 1)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// door is the way that a call takes: a client that knows all nodes, or one that knows any one of them.
func (b *bankLoad) door(r *rand.Rand) *actorclient.Client {
	if i := r.IntN(len(b.any)); r.IntN(2) == 0 {
		return b.any[i]
	} else {
		return b.one[i]
	}
}

func (b *bankLoad) keep(o *bankOp) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ops) >= OpsMax {
		return false
	}
	b.ops = append(b.ops, o)
	b.transfers = slices.DeleteFunc(b.transfers, func(t *subject) bool {
		if t.id == o.ID && o.Outcome == Missing {
			t.left--
		}
		return t.left == 0 || t.id == o.ID && o.Phase.Final()
	})
	return true
}

// ask carries out an op and fills in what came of it. An error is an answer that no client should ever get. An op
// that was asked before keeps its Call.
func (b *bankLoad) ask(ctx context.Context, c *actorclient.Client, o *bankOp) error {
	if o.Call == 0 {
		o.Call = b.now()
	}
	kind := bank.AccountKind
	if o.ofTransfer() {
		kind = bank.TransferKind
	}
	ans, err := speak(ctx, c.Actor(kind, o.ID), o)
	o.Return = b.now()
	switch k := fault.KindOf(err); {
	case err == nil:
	case k == fault.NotFound && o.Verb != openAccount && o.Verb != startTransfer:
		o.Outcome, o.Detail = Missing, ""
		return nil
	case k == fault.Conflict && o.Verb == withdraw:
		o.Outcome, o.Detail = Conflict, ""
		return nil
	case k.Retryable():
		o.Outcome, o.Detail = Unknown, err.Error()
		return nil
	default:
		o.Outcome, o.Detail = Unknown, err.Error()
		return fmt.Errorf("no client should get that")
	}
	o.Outcome, o.Detail = Done, ""
	return ans.into(o)
}

// speech is an answer, or a state that was read: they have the same JSON.
type speech actorclient.State

func speak(ctx context.Context, a *actorclient.Actor, o *bankOp) (speech, error) {
	if o.Verb == readBalance {
		s, err := a.State(ctx)
		return speech(s), err
	}
	typ, msg := o.message()
	body, err := json.Marshal(msg)
	if err != nil {
		return speech{}, err
	}
	ans, err := a.Ask(ctx, actorclient.Message{Type: typ, Body: body, RequestID: o.Request})
	return speech{Version: ans.Version, JSON: ans.Body}, err
}

func (s speech) into(o *bankOp) error {
	o.Version = s.Version
	if o.ofTransfer() {
		var st bank.Status
		if err := actorclient.State(s).Decode(&st); err != nil {
			return err
		}
		if o.Phase = st.Phase; o.Phase == bank.None {
			return fmt.Errorf("its answer names no phase: %s", s.JSON)
		}
		return nil
	}
	o.Balance = bank.Balance{}
	if err := actorclient.State(s).Decode(&o.Balance); err != nil {
		return err
	}
	if o.Verb == readBalance && !o.Balance.Open {
		o.Outcome = Missing
	}
	return nil
}

// repeat sends an op that was answered again under its request id: it must get that answer again, not another one.
func (b *bankLoad) repeat(ctx context.Context, c *actorclient.Client, o *bankOp) {
	again := *o
	if err := b.ask(ctx, c, &again); err != nil {
		b.complain("again: %v: %v", &again, err)
		return
	}
	if again.Outcome != Unknown && (again.Outcome != o.Outcome || again.Version != o.Version || again.Balance != o.Balance) {
		b.complain("sent twice under one request id:\n    %v\n    %v", o, &again)
	}
}

// next picks what a client does.
func (b *bankLoad) next(r *rand.Rand, number int) *bankOp {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := &bankOp{Client: number}
	dice := r.IntN(100)
	if n := len(b.transfers); n > 0 && (dice < 20 || dice < 35 && n == transfersMax) {
		o.Verb, o.ID = getTransfer, b.transfers[r.IntN(n)].id
		return o
	}
	if dice < 35 {
		return b.transfer(r, o)
	}
	account := b.use(r.IntN(accountsMax))
	o.ID = account.id
	o.Cents = 1 + r.Int64N(amountMax)
	switch {
	case account.left >= accountOps-2 || dice < 38: // a new one is opened, by two clients at once perhaps
		o.Verb, o.Cents = openAccount, 0
	case dice < 55:
		o.Verb, o.Cents = deposit, 3*o.Cents
	case dice < 72:
		o.Verb = withdraw
	case dice < 86:
		o.Verb, o.Cents = getBalance, 0
	default:
		o.Verb, o.Cents = readBalance, 0
	}
	return o
}

// transfer makes o start one between two accounts that are not for cash only.
func (b *bankLoad) transfer(r *rand.Rand, o *bankOp) *bankOp {
	const n = accountsMax - cashAccounts
	i := r.IntN(n)
	j := (i + 1 + r.IntN(n-1)) % n
	from, to, t := b.use(cashAccounts+i), b.use(cashAccounts+j), b.fresh("t", transferLooks)
	o.Verb, o.ID = startTransfer, t.id
	o.Start = bank.Start{From: from.id, To: to.id, Cents: 1 + r.Int64N(amountMax)}
	b.transfers = append(b.transfers, t)
	return o
}

// use counts an op on an account. One that has had enough is replaced by a new one; its money stays where it is.
func (b *bankLoad) use(i int) *subject {
	if b.accounts[i].left == 0 {
		b.accounts[i] = b.fresh("a", accountOps)
	}
	b.accounts[i].left--
	return b.accounts[i]
}
