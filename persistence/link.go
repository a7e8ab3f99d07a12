package persistence

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// link is a connection this node opened. dragonboat uses it from one goroutine; another one
// reads the pongs.
type link struct {
	conn  net.Conn
	b     []byte
	asked time.Time     // when the last ping was sent
	pings uint64        // sent
	pongs atomic.Uint64 // received
	heard chan struct{} // one pong wakes the snapshot's last wait
	once  sync.Once
	wg    sync.WaitGroup
}

var errNoPong = errors.New("no sign of life within pongTimeout")

func newLink(conn net.Conn) *link {
	l := &link{conn: conn, heard: make(chan struct{}, 1)}
	l.wg.Go(l.listen)
	return l
}

// listen counts pongs; anything else ends the connection.
func (l *link) listen() {
	defer close(l.heard)
	in := newFrames(l.conn)
	for {
		kind, _, err := in.next(idleTimeout)
		if err != nil || kind != framePong {
			l.conn.Close()
			return
		}
		l.pongs.Add(1)
		select {
		case l.heard <- struct{}{}:
		default:
		}
	}
}

// Close ends the connection and waits for its goroutine.
func (l *link) Close() {
	l.once.Do(func() { l.conn.Close() })
	l.wg.Wait()
}

// SendMessageBatch sends what may go to a peer. Proposals and requests to transfer the lead, which
// dragonboat forwards from a replica that has just lost the lead, do not: who asked
// must learn that this node leads no more.
func (l *link) SendMessageBatch(batch raftpb.MessageBatch) error {
	batch.Requests = forPeers(batch.Requests)
	if len(batch.Requests) == 0 {
		return nil
	}
	return l.send(frameMessages, batch.Size(), batch.MarshalTo)
}

func forPeers(all []raftpb.Message) []raftpb.Message {
	stay := func(m *raftpb.Message) bool { return m.Type == raftpb.Propose || m.Type == raftpb.LeaderTransfer }
	for i := range all {
		if !stay(&all[i]) {
			continue
		}
		kept := append([]raftpb.Message{}, all[:i]...) // the slice is dragonboat's
		for j := i + 1; j < len(all); j++ {
			if !stay(&all[j]) {
				kept = append(kept, all[j])
			}
		}
		return kept
	}
	return all
}

func (l *link) send(kind byte, size int, marshal func([]byte) (int, error)) error {
	if cap(l.b) > frameKept {
		l.b = nil
	}
	if cap(l.b) < frameHeader+size {
		l.b = make([]byte, frameHeader+size, frameHeader+size+frameHeader)
	}
	b := l.b[:frameHeader+size]
	n, err := marshal(b[frameHeader:])
	if err != nil {
		return err
	}
	b = b[:frameHeader+n]
	if n > frameMax(kind) {
		return errFrame
	}
	sealFrame(b, kind)
	now := time.Now()
	switch silent := now.Sub(l.asked); {
	case l.pongs.Load() < l.pings:
		if silent > pongTimeout {
			return errNoPong
		}
	case silent > pingEvery:
		b = l.ping(b, now)
	}
	l.b = b
	return writeAll(l.conn, b)
}

func (l *link) ping(b []byte, now time.Time) []byte {
	l.asked = now
	l.pings++
	return appendFrame(b, framePing)
}

// snapshotLink is a link for the chunks of one snapshot.
type snapshotLink struct{ *link }

// SendChunk sends a chunk.
func (l snapshotLink) SendChunk(c raftpb.Chunk) error {
	return l.send(frameChunk, c.Size(), c.MarshalTo)
}

// Close waits until the peer has read all chunks: closing at once might reset the connection
// in front of them.
func (l snapshotLink) Close() {
	defer l.link.Close()
	if writeAll(l.conn, l.ping(nil, time.Now())) != nil {
		return
	}
	end := time.NewTimer(pieceTimeout)
	defer end.Stop()
	for l.pongs.Load() < l.pings {
		select {
		case _, open := <-l.heard:
			if !open {
				return
			}
		case <-end.C:
			return
		}
	}
}
