package journal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// FuzzDecode: decoding any bytes gives an entry or ErrUndecodable that names the sequence; what decodes encodes again.
func FuzzDecode(f *testing.F) {
	for _, e := range []proto.Message{fact("a", 1), gone("a", 1), outcome("a", 1, 1), vouch(), write("a"), wish("x", time.Unix(1, 2)), nodeFact("n", "a")} {
		data, err := proto.Marshal(e)
		check(f, err)
		f.Add(data)
	}
	f.Add([]byte{})
	f.Add([]byte{0x28, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		entry, err := decode(42, "", data)
		if err != nil {
			if entry != nil || !errors.Is(err, ErrUndecodable) || !strings.Contains(err.Error(), "sequence 42") {
				t.Fatalf("%v, %v", entry, err)
			}
			return
		}
		if entry.Kind == nil && !entry.Skippable {
			t.Fatal("an entry without a kind passed")
		}
		again, err := encode("local", entry)
		check(t, err)
		if back, err := decode(42, "", again); err != nil || !proto.Equal(entry, back) {
			t.Fatalf("%v encodes as %v, %v", entry, back, err)
		}
		_ = idOf(entry)
		_, _ = SubjectOf("local", 1, entry)
	})
}

// FuzzDecodeEvent: the same for what stands under the subject of a rollout event.
func FuzzDecodeEvent(f *testing.F) {
	for _, e := range []*shiplogv1.Entry{rolloutEvent("web", 1, 0), rolloutEvent("a/b.%c", 1<<60, 9)} {
		data, err := encode("local", e)
		check(f, err)
		f.Add(data)
	}
	f.Add([]byte(`{"specversion":"1.0","type":"dev.shiplog.rollout.x","cause":"1","id":"1.0.0","subject":"/api/v1/pods/a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		const subject = "shiplog.local.event.CloneSet.default.web.pod-updated"
		entry, err := decode(42, subject, data)
		if err != nil {
			if entry != nil || !errors.Is(err, ErrUndecodable) || !strings.Contains(err.Error(), "sequence 42") {
				t.Fatalf("%v, %v", entry, err)
			}
			return
		}
		again, err := encode("local", entry)
		if err != nil {
			t.Fatalf("%v: %v", entry, err)
		}
		if back, err := decode(42, subject, again); err != nil || back.GetCause() != entry.GetCause() || back.GetRolloutEvent().GetIndex() != entry.GetRolloutEvent().GetIndex() {
			t.Fatalf("%v encodes as %s, %v", entry, again, err)
		}
		_, _ = SubjectOf("local", 1, entry)
	})
}

func TestDecodeLimit(t *testing.T) {
	t.Parallel()
	_, err := decode(7, "", make([]byte, maxEntry+1))
	wantError(t, err, ErrUndecodable)
}

func viewOf(t testing.TB, records []raw) []byte {
	var b bytes.Buffer
	w, err := newViewWriter(&b)
	check(t, err)
	for _, r := range records {
		check(t, w.put(r))
	}
	check(t, w.close())
	return b.Bytes()
}

func someRecords(n int) []raw {
	var records []raw
	for i := range n {
		records = append(records, raw{sequence: uint64(3*i + 1), time: time.Unix(int64(i), 5).UTC(), subject: "s", data: filler(i)})
	}
	return records
}

// TestEveryCutIsSeen: a view that ends early, or of which one byte changed, is never taken for a whole one.
func TestEveryCutIsSeen(t *testing.T) {
	t.Parallel()
	whole := viewOf(t, someRecords(50))
	var got []raw
	check(t, readView(bytes.NewReader(whole), func(m raw) error { got = append(got, m); return nil }))
	for i, want := range someRecords(50) {
		if m := got[i]; m.sequence != want.sequence || !m.time.Equal(want.time) || m.subject != want.subject || !bytes.Equal(m.data, want.data) {
			t.Fatalf("record %d reads %+v", i, m)
		}
	}
	ignore := func(raw) error { return nil }
	for i := range whole {
		if err := readView(bytes.NewReader(whole[:i]), ignore); !errors.Is(err, errView) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	stop := errors.New("enough")
	wantError(t, readView(bytes.NewReader(whole), func(raw) error { return stop }), stop)
}

func FuzzReadView(f *testing.F) {
	f.Add(viewOf(f, nil))
	f.Add(viewOf(f, someRecords(3)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var last uint64
		err := readView(bytes.NewReader(data), func(m raw) error {
			if m.sequence <= last {
				t.Fatalf("%d after %d", m.sequence, last)
			}
			last = m.sequence
			return nil
		})
		if err != nil && !errors.Is(err, errView) {
			t.Fatal(err)
		}
	})
}
