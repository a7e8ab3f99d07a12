package persistence

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

func readFrames(b []byte) (kinds []byte, err error) {
	f := &frames{r: bufio.NewReader(bytes.NewReader(b))}
	for {
		kind, payload, err := f.next(0)
		if err != nil {
			return kinds, err
		}
		if kind == frameHello {
			err = checkHello(payload)
		}
		if err != nil {
			return kinds, err
		}
		kinds = append(kinds, kind)
	}
}

func TestFrames(t *testing.T) {
	b := appendFrame(appendFrame(appendHello(nil), frameMessages, make([]byte, 700<<10)...), framePing)
	kinds, err := readFrames(b)
	require.Equal(t, io.EOF, err)
	require.Equal(t, []byte{frameHello, frameMessages, framePing}, kinds)
	for at := range len(appendHello(nil)) + 9 {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[at] ^= 1 << bit
			_, err := readFrames(bad)
			require.NotEqual(t, io.EOF, err, "bit %d of byte %d", bit, at)
		}
	}
	for at := 1; at < len(b)-frameHeader; at += 1 + at/3 {
		if at == len(appendHello(nil)) {
			continue
		}
		_, err := readFrames(b[:at])
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", at)
	}
	huge := binary.BigEndian.AppendUint32([]byte{frameMessages}, messagesMax+1)
	_, err = readFrames(append(huge, 0, 0, 0, 0))
	require.ErrorIs(t, err, errFrame)
	for _, hello := range []string{"", "AGLMRAFT", "AGLMRAFT\x00", "HTTP/1.1 "} {
		require.ErrorIs(t, checkHello([]byte(hello)), errFrame)
	}
	require.NoError(t, checkHello([]byte("AGLMRAFT\x02")), "a newer peer")
}

// TestFramesTakeMemoryAsBytesArrive: a header alone costs nothing.
func TestFramesTakeMemoryAsBytesArrive(t *testing.T) {
	f := &frames{r: bufio.NewReader(bytes.NewReader(binary.BigEndian.AppendUint32([]byte{frameMessages}, messagesMax)[:5]))}
	f.r = bufio.NewReader(io.MultiReader(bytes.NewReader(append(binary.BigEndian.AppendUint32([]byte{frameMessages}, messagesMax), 1, 2, 3, 4)), strings.NewReader("little")))
	_, _, err := f.next(0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, cap(f.b), 4*framePiece)
}

func testGate() gate {
	r := newRegistry(func(int) {})
	r.Add(1, 1, "leader")
	r.Add(1, 2, "here")
	return gate{deployment: deployment, shards: 2, room: func(n int) bool { return n < 1000 },
		hosted: func(shard int) uint64 { return []uint64{2, 0}[shard] }, speaks: r.speaks}
}

func TestGateMessages(t *testing.T) {
	const drop, keep, end = "drop", "keep", "end"
	good := raftpb.Message{Type: raftpb.Heartbeat, ShardID: 1, From: 1, To: 2, Term: 3}
	entry := func(index uint64, kind raftpb.EntryType, size int) raftpb.Entry {
		return raftpb.Entry{Index: index, Type: kind, Term: 1, Cmd: make([]byte, size)}
	}
	with := func(f func(m *raftpb.Message)) raftpb.Message { m := good; f(&m); return m }
	for name, x := range map[string]struct {
		m    raftpb.Message
		node string
		want string
	}{
		"heartbeat":           {good, "leader", keep},
		"of another node":     {good, "liar", end},
		"of an unknown one":   {with(func(m *raftpb.Message) { m.From = 7 }), "new", keep},
		"to nobody":           {with(func(m *raftpb.Message) { m.To = 0 }), "leader", end},
		"from nobody":         {with(func(m *raftpb.Message) { m.From = 0 }), "leader", end},
		"to another replica":  {with(func(m *raftpb.Message) { m.To = 9 }), "leader", drop},
		"to a group not here": {with(func(m *raftpb.Message) { m.ShardID = 2 }), "leader", drop},
		"to no group":         {with(func(m *raftpb.Message) { m.ShardID = 3 }), "leader", end},
		"to group 0":          {with(func(m *raftpb.Message) { m.ShardID = 0 }), "leader", end},
		"a proposal":          {with(func(m *raftpb.Message) { m.Type = raftpb.Propose }), "leader", end},
		"a tick":              {with(func(m *raftpb.Message) { m.Type = raftpb.LocalTick }), "leader", end},
		"an election":         {with(func(m *raftpb.Message) { m.Type = raftpb.Election }), "leader", end},
		"a membership":        {with(func(m *raftpb.Message) { m.Type = raftpb.ConfigChangeEvent }), "leader", end},
		"a snapshot":          {with(func(m *raftpb.Message) { m.Type = raftpb.InstallSnapshot }), "leader", end},
		"a hidden snapshot":   {with(func(m *raftpb.Message) { m.Snapshot.Index = 1 }), "leader", end},
		"an unknown type":     {with(func(m *raftpb.Message) { m.Type = 99 }), "leader", end},
		"a negative type":     {with(func(m *raftpb.Message) { m.Type = -1 }), "leader", end},
		"entries not wanted":  {with(func(m *raftpb.Message) { m.Entries = []raftpb.Entry{entry(1, 0, 1)} }), "leader", end},
		"entries": {with(func(m *raftpb.Message) {
			m.Type, m.Entries = raftpb.Replicate, []raftpb.Entry{entry(1, 2, 1), entry(2, 1, 1)}
		}), "leader", keep},
		"entries with a gap": {with(func(m *raftpb.Message) {
			m.Type, m.Entries = raftpb.Replicate, []raftpb.Entry{entry(1, 2, 1), entry(3, 2, 1)}
		}), "leader", end},
		"entries for witness":    {with(func(m *raftpb.Message) { m.Type, m.Entries = raftpb.Replicate, []raftpb.Entry{entry(1, 3, 1)} }), "leader", end},
		"more than there's room": {with(func(m *raftpb.Message) { m.Type, m.Entries = raftpb.Replicate, []raftpb.Entry{entry(1, 2, 2000)} }), "leader", drop},
	} {
		g := testGate()
		b := raftpb.MessageBatch{DeploymentId: deployment, BinVer: raftio.TransportBinVersion, SourceAddress: "anything", Requests: []raftpb.Message{x.m}}
		err := g.messages(x.node, &b)
		require.Equal(t, x.want == end, err != nil, "%s: %v", name, err)
		if err == nil {
			require.Equal(t, x.want == keep, len(b.Requests) == 1, name)
			require.Empty(t, b.SourceAddress)
		}
	}
	g := testGate()
	require.Error(t, g.messages("leader", &raftpb.MessageBatch{DeploymentId: 2, BinVer: raftio.TransportBinVersion}))
	require.Error(t, g.messages("leader", &raftpb.MessageBatch{DeploymentId: deployment, BinVer: 1}))
}

func goodChunk() raftpb.Chunk {
	return raftpb.Chunk{DeploymentId: deployment, BinVer: raftio.TransportBinVersion, ShardID: 1, ReplicaID: 2, From: 1, Index: 5, Term: 1,
		Filepath: "snapshot-0000000000000005.gbsnap", Data: make([]byte, 100),
		Membership: raftpb.Membership{ConfigChangeId: 3, Addresses: map[uint64]string{1: "leader", 2: "here"}}}
}

func TestGateSnapshot(t *testing.T) {
	g := testGate()
	c := goodChunk()
	require.NoError(t, g.snapshot("leader", &c))
	require.Error(t, g.snapshot("liar", &c))
	for name, f := range map[string]func(c *raftpb.Chunk){
		"deployment":        func(c *raftpb.Chunk) { c.DeploymentId = 3 },
		"version":           func(c *raftpb.Chunk) { c.BinVer = 3 },
		"no group":          func(c *raftpb.Chunk) { c.ShardID = 3 },
		"group 0":           func(c *raftpb.Chunk) { c.ShardID = 0 },
		"not here":          func(c *raftpb.Chunk) { c.ShardID = 2 },
		"another replica":   func(c *raftpb.Chunk) { c.ReplicaID = 1 },
		"from nobody":       func(c *raftpb.Chunk) { c.From = 0 },
		"parent folder":     func(c *raftpb.Chunk) { c.Filepath = ".." },
		"another folder":    func(c *raftpb.Chunk) { c.Filepath = "../snapshot-0000000000000005.gbsnap" },
		"no file":           func(c *raftpb.Chunk) { c.Filepath = "" },
		"more files":        func(c *raftpb.Chunk) { c.HasFileInfo = true },
		"witness":           func(c *raftpb.Chunk) { c.Witness = true },
		"index":             func(c *raftpb.Chunk) { c.Index = 0 },
		"term":              func(c *raftpb.Chunk) { c.Term = 0 },
		"membership":        func(c *raftpb.Chunk) { c.Membership.ConfigChangeId = 0 },
		"not a member":      func(c *raftpb.Chunk) { c.Membership.Addresses = map[uint64]string{1: "leader"} },
		"a witness in it":   func(c *raftpb.Chunk) { c.Membership.Witnesses = map[uint64]string{9: "x"} },
		"chunk of the file": func(c *raftpb.Chunk) { c.FileChunkId = 2 },
		"poison":            func(c *raftpb.Chunk) { c.ChunkCount = raftpb.PoisonChunkCount },
		"no room":           func(c *raftpb.Chunk) { c.Data = make([]byte, 600) },
	} {
		c := goodChunk()
		f(&c)
		require.Error(t, g.snapshot("leader", &c), name)
	}
}

// FuzzPeer feeds a connection with anything: it ends, and nothing panics.
func FuzzPeer(f *testing.F) {
	frame := func(kind byte, m interface{ Marshal() ([]byte, error) }) []byte {
		b, _ := m.Marshal()
		return appendFrame(appendHello(nil), kind, b...)
	}
	chunk := goodChunk()
	f.Add(appendHello(nil))
	f.Add(frame(frameChunk, &chunk))
	f.Add(frame(frameMessages, &raftpb.MessageBatch{DeploymentId: deployment, BinVer: raftio.TransportBinVersion,
		Requests: []raftpb.Message{{Type: raftpb.Replicate, ShardID: 1, From: 1, To: 2, Entries: []raftpb.Entry{{Index: 1, Cmd: []byte("x")}}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr := &transport{gate: testGate(), log: quietLog(), receive: func(raftpb.MessageBatch) {}, chunk: func(raftpb.Chunk) bool { return true }}
		mine, theirs := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- tr.serve(theirs, "leader") }()
		go io.Copy(io.Discard, mine) // pongs
		mine.SetDeadline(time.Now().Add(patience))
		mine.Write(b)
		for i := range b { // and the same with right checksums, which the fuzzer can not find
			if i+frameHeader < len(b) && frameMax(b[i]) > 0 {
				mine.Write(appendFrame(nil, b[i], b[i+1:min(len(b), i+1+chunkMax)]...))
				break
			}
		}
		mine.Close()
		require.Error(t, <-ended)
		theirs.Close()
	})
}

// TestHostilePeer: whoever sends garbage breaks his own connections, however many, and nothing else.
func TestHostilePeer(t *testing.T) {
	c := formed(t, 3, Options{Shards: 1})
	l := c.leader(0)
	evil := c.net.end()
	c.net.name(evil, c.nodes[2].id) // with the certificate of a member
	var conns []net.Conn
	send := func(b []byte) {
		conn, err := evil.Dial(within(t), l.id)
		require.NoError(t, err)
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write(b)
		_, err = io.ReadAll(conn)
		require.NoError(t, err, "the other side hangs up")
		conn.Close()
	}
	batch := func(m raftpb.Message) []byte {
		b, err := (&raftpb.MessageBatch{DeploymentId: deployment, BinVer: raftio.TransportBinVersion, Requests: []raftpb.Message{m}}).Marshal()
		require.NoError(t, err)
		return appendFrame(appendHello(nil), frameMessages, b...)
	}
	self := l.group(0).Self
	send([]byte("GET / HTTP/1.1\r\n\r\n"))
	send(appendFrame(nil, framePing))
	send(appendFrame(appendHello(nil), frameMessages, []byte("garbage")...))
	send(appendFrame(appendHello(nil), frameChunk, []byte("garbage")...))
	send(batch(raftpb.Message{Type: raftpb.Heartbeat, ShardID: 1, From: self, To: self, Term: 1 << 40}))
	send(batch(raftpb.Message{Type: raftpb.TimeoutNow, ShardID: 1, From: 0, To: self}))
	send(batch(raftpb.Message{Type: raftpb.Propose, ShardID: 1, From: 3, To: self, Entries: []raftpb.Entry{{Cmd: []byte("\xff\xff")}}}))
	bad := goodChunk()
	bad.Filepath = "../../etc/passwd"
	b, err := bad.Marshal()
	require.NoError(t, err)
	send(appendFrame(appendHello(nil), frameChunk, b...))
	for range peerConns + 20 { // more than may be open
		if conn, err := evil.Dial(within(t), l.id); err == nil {
			conns = append(conns, conn)
		}
	}
	l.write(0, "a", []byte("x"))
	for _, conn := range conns {
		conn.Close()
	}
	require.Equal(t, l, c.leader(0))
}

func TestForwardedStaysHere(t *testing.T) {
	all := []raftpb.Message{{Type: raftpb.Propose}, {Type: raftpb.Heartbeat}, {Type: raftpb.LeaderTransfer}, {Type: raftpb.Replicate}}
	require.Equal(t, []raftpb.Message{{Type: raftpb.Heartbeat}, {Type: raftpb.Replicate}}, forPeers(all))
	require.Equal(t, raftpb.Propose, all[0].Type, "the slice is not touched")
	require.Empty(t, forPeers(all[:1]))
	require.Len(t, forPeers(all[3:]), 1)
}

// TestDeadLinkIsFound: a sender that gets no sign of life gives up the connection, although writing to it works.
func TestDeadLinkIsFound(t *testing.T) {
	mine, theirs := net.Pipe()
	go io.Copy(io.Discard, theirs)
	defer theirs.Close()
	l := newLink(mine)
	defer l.Close()
	m := raftpb.MessageBatch{Requests: []raftpb.Message{{Type: raftpb.Heartbeat}}}
	require.NoError(t, l.SendMessageBatch(m))
	require.NoError(t, l.SendMessageBatch(m))
	l.asked = l.asked.Add(-pongTimeout - time.Second)
	require.ErrorIs(t, l.SendMessageBatch(m), errNoPong)
}
