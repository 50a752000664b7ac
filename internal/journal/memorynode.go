package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

func (m *Memory) Join(_ context.Context, node string) (Node, error) { return &memoryNode{m, node}, nil }

// Identify: in memory nobody connects.
func (m *Memory) Identify(ctx context.Context, _ func(context.Context, Proof) (Identity, error)) error {
	<-ctx.Done()
	return nil
}

// Admit: in memory everybody is.
func (m *Memory) Admit(context.Context, string) error { return nil }

func (m *Memory) Calls(ctx context.Context, name string) (Work, error) {
	return m.work(ctx, name, func(a Address) bool { return a.Space == spaceNode && a.Part == partCommand })
}

func (m *Memory) Hear(ctx context.Context, intake Intake) error {
	m.mu.Lock()
	m.intakes = append(m.intakes, &intake)
	m.wake()
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.intakes = slices.DeleteFunc(m.intakes, func(one *Intake) bool { return one == &intake })
	return nil
}

func (m *Memory) At(ctx context.Context, sequence uint64) (*Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.reachable(ctx); err != nil {
		return nil, fmt.Errorf("read entry %d: %w", sequence, err)
	}
	if sequence < m.first || sequence > m.last {
		return nil, nil
	}
	return m.from(sequence)[0].record()
}

func (m *Memory) LastOfCall(ctx context.Context, node string, command uint64) (word, outcome *Record, err error) {
	if word, err = m.lastAt(ctx, callOf("local", node, partFact, command)); err != nil {
		return nil, nil, err
	}
	outcome, err = m.lastAt(ctx, callOf("local", node, partOutcome, command))
	return word, outcome, err
}

func (m *Memory) AppendWord(ctx context.Context, word *shiplogv1.Entry) (uint64, error) {
	x, node, err := composeWord("local", word)
	if err != nil {
		return 0, err
	}
	return m.appendIf(ctx, x, callOf("local", node, partOutcome, word.GetCause()), 0)
}

func (m *Memory) AppendSilence(ctx context.Context, outcome *shiplogv1.Entry, heard uint64) (uint64, error) {
	x, node, err := composeWord("local", outcome)
	if err != nil {
		return 0, err
	}
	return m.appendIf(ctx, x, callOf("local", node, partFact, outcome.GetCause()), heard)
}

func (m *Memory) appendIf(ctx context.Context, x message, at Address, sequence uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(err error) (uint64, error) { return 0, fmt.Errorf("append a word at %s: %w", x.subject, err) }
	if err := m.reachable(ctx); err != nil {
		return fail(err)
	}
	if err := m.room([]message{x}); err != nil {
		return fail(err)
	}
	if newest := m.newest(at); newest != sequence {
		return fail(fmt.Errorf("%w: by the entry at %d", ErrSettled, newest))
	}
	before := m.last
	stored := m.store(x)
	if m.last == before {
		return fail(fmt.Errorf("%w: by the entry at %d", ErrSettled, stored))
	}
	m.wake()
	return stored, nil
}

// newest returns the sequence of the newest entry at an address, or 0.
func (m *Memory) newest(at Address) uint64 {
	subject := at.String()
	for i := len(m.messages) - 1; i >= 0; i-- {
		if m.messages[i].subject == subject {
			return m.messages[i].sequence
		}
	}
	return 0
}

// memoryNode is a Node over a Memory. Its words are answered in its own goroutine.
type memoryNode struct {
	m    *Memory
	node string
}

func (n *memoryNode) Commands(ctx context.Context) (Work, error) {
	return n.m.work(ctx, nodeConsumer(n.node), func(a Address) bool {
		return a.Space == spaceNode && a.Part == partCommand && a.Node == n.node
	})
}

func (n *memoryNode) Say(ctx context.Context, word *shiplogv1.Entry) (Said, error) {
	data, err := proto.Marshal(word)
	if err != nil {
		return Said{}, fmt.Errorf("encode a word: %w", err)
	}
	a, err := n.request(ctx, partSay, verbWord, data)
	return a.Said, err
}

func (n *memoryNode) Alive(ctx context.Context) (uint64, error) {
	a, err := n.request(ctx, partSay, verbAlive, nil)
	return a.Sequence, err
}

func (n *memoryNode) Credentials(ctx context.Context, request CredentialsRequest) (SealedCredentials, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return SealedCredentials{}, fmt.Errorf("encode a question: %w", err)
	}
	a, err := n.request(ctx, partAsk, verbCredentials, data)
	if err != nil || a.Credentials == nil {
		return SealedCredentials{}, err
	}
	return *a.Credentials, nil
}

func (n *memoryNode) request(ctx context.Context, part, verb string, data []byte) (answer, error) {
	n.m.mu.Lock()
	err := n.m.reachable(ctx)
	intakes := slices.Clone(n.m.intakes)
	if err == nil && n.m.limits.EntryBytes > 0 && len(data) > n.m.limits.EntryBytes {
		err = ErrTooLarge
	}
	if err == nil && len(intakes) == 0 {
		err = fmt.Errorf("%w: there is no intake", ErrUnavailable)
	}
	n.m.mu.Unlock()
	if err != nil {
		return answer{}, fmt.Errorf("say something of node %s: %w", n.node, err)
	}
	if verb == verbAlive {
		for _, intake := range intakes {
			intake.Heard(n.node)
		}
	}
	a := intakes[0].answer(ctx, n.node, part, verb, data)
	if err := a.err(); err != nil {
		return answer{}, fmt.Errorf("say something of node %s: %w", n.node, err)
	}
	return a, nil
}

func (n *memoryNode) Close() error { return nil }
