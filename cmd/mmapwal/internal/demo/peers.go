package demo

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	queueLength  = 1024
	maxFrame     = 64 << 20
	dialTimeout  = 200 * time.Millisecond
	writeTimeout = time.Second
	redialAfter  = 50 * time.Millisecond
)

// transport carries Raft's messages between the nodes. It may lose some; Raft
// copes with that.
type transport struct {
	session  uint64
	listener net.Listener
	peers    map[uint64]*peer
	inbox    chan *raftpb.Message
	lost     chan uint64 // ids of peers that a message did not reach
	done     chan struct{}
	running  sync.WaitGroup
}

// peer is another node.
type peer struct {
	id    uint64
	addr  atomic.Pointer[string]
	queue chan []byte
}

// listen returns a transport that receives, and sends once connect told it where to.
func listen(self, session uint64) (*transport, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	t := &transport{
		session:  session,
		listener: l,
		peers:    make(map[uint64]*peer),
		inbox:    make(chan *raftpb.Message, queueLength),
		lost:     make(chan uint64, queueLength),
		done:     make(chan struct{}),
	}
	for id := uint64(1); id <= nodes; id++ {
		if id != self {
			p := &peer{id: id, queue: make(chan []byte, queueLength)}
			t.peers[id] = p
			t.running.Go(func() { t.deliver(p) })
		}
	}
	t.running.Go(t.accept)
	return t, nil
}

// connect says where the peers listen from now on.
func (t *transport) connect(addrs map[uint64]string) {
	for id, addr := range addrs {
		if p := t.peers[id]; p != nil {
			p.addr.Store(&addr)
		}
	}
}

// send queues the messages.
func (t *transport) send(messages []*raftpb.Message) error {
	for _, m := range messages {
		p := t.peers[m.GetTo()]
		if p == nil {
			return fmt.Errorf("message %v to node %d, which there is not", m.GetType(), m.GetTo())
		}
		frame, err := proto.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode message: %w", err)
		}
		select {
		case p.queue <- frame:
		default:
			t.report(p)
		}
	}
	return nil
}

// report says that a message did not reach p. It never waits.
func (t *transport) report(p *peer) {
	select {
	case t.lost <- p.id:
	default:
	}
}

// deliver sends what is queued for p.
func (t *transport) deliver(p *peer) {
	var l link
	defer l.close()
	for {
		select {
		case <-t.done:
			return
		case frame := <-p.queue:
			if err := l.send(t.session, p.addr.Load(), frame); err != nil {
				l.close()
				t.report(p)
			}
		}
	}
}

// link is a connection to the address where a peer listened last.
type link struct {
	conn   net.Conn
	addr   string
	failed time.Time
}

func (l *link) send(session uint64, addr *string, frame []byte) error {
	if addr == nil {
		return errors.New("no address yet")
	}
	if l.addr != *addr {
		l.close()
		l.addr, l.failed = *addr, time.Time{}
	}
	if l.conn == nil {
		if err := l.dial(session); err != nil {
			return err
		}
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

func (l *link) dial(session uint64) error {
	if time.Since(l.failed) < redialAfter {
		return errors.New("dialled just now, in vain")
	}
	conn, err := net.DialTimeout("tcp", l.addr, dialTimeout)
	if err == nil {
		_, err = conn.Write(binary.BigEndian.AppendUint64(nil, session))
		l.conn = conn
	}
	if err != nil {
		l.failed = time.Now()
	}
	return err
}

// close gives up the connection. What was under way may be lost.
func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

// accept serves the connections of peers until the transport is closed.
func (t *transport) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return
		}
		t.running.Go(func() { t.serve(conn) })
	}
}

// serve receives messages until the connection fails; the peer makes a new one.
func (t *transport) serve(conn net.Conn) {
	received := make(chan struct{})
	t.running.Go(func() {
		select {
		case <-t.done:
		case <-received:
		}
		_ = conn.Close()
	})
	defer close(received)
	in := bufio.NewReader(conn)
	var session uint64
	if binary.Read(in, binary.BigEndian, &session) != nil || session != t.session {
		return // a stranger
	}
	for {
		m, err := receive(in)
		if err != nil {
			return
		}
		select {
		case t.inbox <- m:
		case <-t.done:
			return
		}
	}
}

// receive reads one message.
func receive(in io.Reader) (*raftpb.Message, error) {
	var size uint32
	if err := binary.Read(in, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	if size > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(in, frame); err != nil {
		return nil, err
	}
	m := &raftpb.Message{}
	return m, proto.Unmarshal(frame, m)
}

// close ends the transport and waits for all that it runs.
func (t *transport) close() error {
	close(t.done)
	err := t.listener.Close()
	t.running.Wait()
	return err
}
