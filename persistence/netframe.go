package persistence

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"
)

// What peers send each other is a row of frames:
//
//	kind 1 │ length of payload 4 │ crc32c 4 of kind, length and payload │ payload
//
// The one that dialed sends hello first, then messages or chunks, and a ping now and then, which
// the other side answers with a pong: the only thing it sends.
const (
	frameHello    = 1 // payload: helloMagic, version 1
	frameMessages = 2 // a raftpb.MessageBatch
	frameChunk    = 3 // a raftpb.Chunk of a snapshot
	framePing     = 4 // empty
	framePong     = 5 // empty

	frameHeader  = 1 + 4 + 4
	helloMagic   = "AGLMRAFT"
	helloVersion = 1

	// dragonboat fills a batch up to 64 MiB, or with one message that has up to 64 MiB of
	// entries; what it counts less precisely than the encoding takes fits in the rest.
	messagesMax = 80 << 20
	chunkMax    = 2<<20 + 256<<10 // dragonboat cuts snapshots into chunks of 2 MiB; some have a membership

	frameKept  = 1 << 20   // bytes of buffer a connection keeps between frames
	framePiece = 256 << 10 // bytes read or written between two deadlines
)

// Deadlines of a connection.
const (
	dialTimeout  = 2 * time.Second
	pieceTimeout = 5 * time.Second // for framePiece bytes
	helloTimeout = 5 * time.Second
	idleTimeout  = 90 * time.Second // dragonboat closes a connection it had no use for in a minute

	// A peer that was cut off gets no FIN, and TCP tries again ever more slowly. So a sender asks for signs of
	// life and dials anew when there are none.
	pingEvery   = 500 * time.Millisecond
	pongTimeout = 3 * time.Second
)

var errFrame = errors.New("not a frame of this protocol")

// frameMax is how many bytes the payload of a kind may have; -1: there is no such kind.
func frameMax(kind byte) int {
	switch kind {
	case frameHello:
		return len(helloMagic) + 1
	case frameMessages:
		return messagesMax
	case frameChunk:
		return chunkMax
	case framePing, framePong:
		return 0
	}
	return -1
}

// sealFrame fills in the header of a frame; b is room for the header and then the payload.
func sealFrame(b []byte, kind byte) {
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-frameHeader))
	binary.BigEndian.PutUint32(b[5:], frameSum(b))
}

func frameSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:5], castagnoli), castagnoli, b[frameHeader:])
}

func appendFrame(b []byte, kind byte, payload ...byte) []byte {
	at := len(b)
	b = append(append(b, make([]byte, frameHeader)...), payload...)
	sealFrame(b[at:], kind)
	return b
}

func appendHello(b []byte) []byte {
	return appendFrame(b, frameHello, append([]byte(helloMagic), helloVersion)...)
}

// checkHello accepts every version from the first on: a newer peer speaks
// no kind of frame before it knows that this side does.
func checkHello(payload []byte) error {
	if len(payload) != len(helloMagic)+1 || string(payload[:len(helloMagic)]) != helloMagic || payload[len(helloMagic)] < 1 {
		return errFrame
	}
	return nil
}

// frames reads frames. It takes memory as bytes arrive, not as a header announces them.
type frames struct {
	conn net.Conn // its deadline is moved; nil: there is none
	r    *bufio.Reader
	b    []byte
}

func newFrames(conn net.Conn) *frames {
	return &frames{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
}

// next returns the next frame. The payload is lent until the next call.
func (f *frames) next(wait time.Duration) (kind byte, payload []byte, err error) {
	if cap(f.b) > frameKept {
		f.b = nil
	}
	if err := f.within(wait); err != nil {
		return 0, nil, err
	}
	f.b = append(f.b[:0], make([]byte, frameHeader)...)
	if _, err := io.ReadFull(f.r, f.b); err != nil {
		return 0, nil, err
	}
	kind = f.b[0]
	length := int(binary.BigEndian.Uint32(f.b[1:]))
	if length > frameMax(kind) {
		return 0, nil, fmt.Errorf("%w: kind %d with %d bytes", errFrame, kind, length)
	}
	for length > 0 {
		if err := f.within(pieceTimeout); err != nil {
			return 0, nil, err
		}
		at, piece := len(f.b), min(length, framePiece)
		f.b = append(f.b, make([]byte, piece)...)
		if _, err := io.ReadFull(f.r, f.b[at:]); err != nil {
			return 0, nil, err
		}
		length -= piece
	}
	if binary.BigEndian.Uint32(f.b[5:]) != frameSum(f.b) {
		return 0, nil, fmt.Errorf("%w: checksum", errFrame)
	}
	return kind, f.b[frameHeader:], nil
}

func (f *frames) within(d time.Duration) error {
	if f.conn == nil {
		return nil
	}
	return f.conn.SetReadDeadline(time.Now().Add(d))
}

// writeAll writes b, which has to make progress all the time.
func writeAll(conn net.Conn, b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), framePiece)]
		if err := conn.SetWriteDeadline(time.Now().Add(pieceTimeout)); err != nil {
			return err
		}
		if _, err := conn.Write(piece); err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return nil
}
