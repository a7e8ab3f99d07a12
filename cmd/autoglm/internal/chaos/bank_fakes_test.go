package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/node/api/actorv1"
	"github.com/open-autoglm/autoglm/node/api/actorv1/actorv1connect"
)

// fakeBank keeps money in memory; a transfer is done at once. sick is what it does wrong, now and then.
type fakeBank struct {
	actorv1connect.UnimplementedActorServiceHandler
	sick string

	mu       sync.Mutex
	calls    int
	accounts map[string]*fakeAccount
	ended    map[string]bank.Status
}

type fakeAccount struct {
	version  uint64
	now, old bank.Balance
	answers  map[string]*actorv1.AskResponse // by request id
}

func (f *fakeBank) account(id string) *fakeAccount {
	a := f.accounts[id]
	if a == nil {
		a = &fakeAccount{answers: map[string]*actorv1.AskResponse{}}
		f.accounts[id] = a
	}
	return a
}

func (a *fakeAccount) move(cents int64) {
	a.version++
	a.old, a.now = a.now, bank.Balance{Open: true, Cents: a.now.Cents + cents, Free: a.now.Free + cents}
}

func answerOf(v any, version uint64) *actorv1.AskResponse {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	return &actorv1.AskResponse{Type: "Any", Version: version, Content: &actorv1.AskResponse_Body{Body: b}}
}

var errBusy = connect.NewError(connect.CodeUnavailable, errors.New("busy"))

// Ask is busy now and then, also when it did what it was asked.
func (f *fakeBank) Ask(_ context.Context, req *connect.Request[actorv1.AskRequest]) (*connect.Response[actorv1.AskResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.calls%7 == 0 {
		return nil, errBusy
	}
	res, err := f.answer(req.Msg)
	if err == nil && f.calls%11 == 0 {
		return nil, errBusy
	}
	return connect.NewResponse(res), err
}

func (f *fakeBank) ill(how string) bool { return f.sick == how && f.calls%10 == 0 }

func (f *fakeBank) answer(m *actorv1.AskRequest) (*actorv1.AskResponse, error) {
	if m.Kind == bank.TransferKind {
		return f.transfer(m)
	}
	a := f.account(m.Id)
	if known := a.answers[m.RequestId]; known != nil && f.sick != "doubles" {
		return known, nil
	}
	var what struct{ Cents int64 }
	if err := json.Unmarshal(m.GetBody(), &what); err != nil {
		return nil, err
	}
	switch {
	case m.Type == "Open" && a.now.Open:
		return answerOf(a.now, a.version), nil
	case m.Type == "Open":
	case !a.now.Open:
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no account"))
	case m.Type == "Get":
		if f.ill("stale") {
			return answerOf(a.old, a.version-1), nil
		}
		return answerOf(a.now, a.version), nil
	case m.Type == "Withdraw":
		if what.Cents > a.now.Free {
			return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("not enough"))
		}
		what.Cents = -what.Cents
	}
	before := *a
	a.move(what.Cents)
	res := answerOf(a.now, a.version)
	if f.ill("loses") && m.Type == "Deposit" {
		a.version, a.now, a.old = before.version, before.now, before.old
	}
	a.answers[m.RequestId] = res
	return res, nil
}

func (f *fakeBank) transfer(m *actorv1.AskRequest) (*actorv1.AskResponse, error) {
	st, known := f.ended[m.Id]
	switch {
	case known:
		return answerOf(st, 5), nil
	case m.Type == "Get":
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no transfer"))
	}
	if err := json.Unmarshal(m.GetBody(), &st.Start); err != nil {
		return nil, err
	}
	from, to := f.account(st.From), f.account(st.To)
	st.Phase = bank.Failed
	if from.now.Open && to.now.Open && from.now.Free >= st.Cents {
		st.Phase = bank.Done
		from.move(-st.Cents)
		if !f.ill("halves") {
			to.move(st.Cents)
		}
	}
	f.ended[m.Id] = st
	return answerOf(st, 5), nil
}

// State is what Get answers, without an error where there is no account.
func (f *fakeBank) State(_ context.Context, req *connect.Request[actorv1.StateRequest]) (*connect.Response[actorv1.StateResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.account(req.Msg.Id)
	return connect.NewResponse(&actorv1.StateResponse{Version: a.version,
		Content: &actorv1.StateResponse_Body{Body: answerOf(a.now, 0).GetBody()}}), nil
}

// judgedBank lets clients use a bank and returns what the judge says, and what the clients say themselves.
func judgedBank(t *testing.T, sick string) (bad []Violation, complaints []string) {
	t.Helper()
	f := &fakeBank{sick: sick, accounts: map[string]*fakeAccount{}, ended: map[string]bank.Status{}}
	mux := http.NewServeMux()
	mux.Handle(actorv1connect.NewActorServiceHandler(f))
	var peers []Peer
	for i := range 2 { // two ways to the same bank
		s := httptest.NewServer(mux)
		t.Cleanup(s.Close)
		peers = append(peers, Peer{Name: fmt.Sprintf("node-%d", i+1), URL: s.URL})
	}
	b, err := newBankLoad(peers, 24, time.Millisecond, 42)
	require.NoError(t, err)
	defer b.close()
	b.start()
	enough := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.ops) >= 500
	}
	require.Eventually(t, enough, time.Minute, 5*time.Millisecond)
	b.Stop()
	b.Stop()
	ends := b.finish(t.Context(), 30*time.Second, func(id, format string, args ...any) { t.Errorf(id+": "+format, args...) })
	require.NotEmpty(t, ends.accounts)
	require.NotEmpty(t, ends.transfers)
	bad = checkBank(b.ops, ends, time.Minute)
	for _, v := range bad {
		require.NotContains(t, v.What, "not judged", "it is found out, and not only suspected")
	}
	return bad, b.wrong
}

func TestTheBankLoadShowsWhatIsWrong(t *testing.T) {
	bad, complaints := judgedBank(t, "")
	require.Empty(t, bad, "a bank that does it right")
	require.Empty(t, complaints)
	for _, sick := range []string{"loses", "stale", "halves"} {
		t.Run(sick, func(t *testing.T) {
			bad, _ := judgedBank(t, sick)
			require.NotEmpty(t, bad)
		})
	}
	bad, complaints = judgedBank(t, "doubles")
	require.NotEmpty(t, bad, "doubles")
	require.NotEmpty(t, complaints, "a request that counts twice is answered differently")
}
