package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/test/support"
)

const seconds = 30 // of a flood

// frame is what a line of the trail has besides the members of its record: number, time, a MAC and
// two hashes.
const frame = 320

// lineSize is the length of the line of a record.
func lineSize(t *testing.T, r audit.Record) int {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		t.Fatal(err)
	}
	return b.Len() + frame
}

// counted is how many calls the records stand for.
func counted(t *testing.T, list []audit.Record) (n int) {
	t.Helper()
	for _, r := range list {
		n += support.Calls(t, r.Note)
	}
	return n
}

// stranger is a request that costs as much of the trail as it can.
func stranger(source string) protocol.Request {
	return protocol.Request{
		ID:        "6f1d8a1e-0000-4000-8000-000000000000",
		Source:    netip.MustParseAddr(source),
		UserAgent: strings.Repeat("\x80", 800),
		Action:    strings.Repeat("\"\x01", 500), Version: strings.Repeat("\u2028", 500),
	}
}

// TestStrangersDoNotFillTheTrail sends unsigned requests for half a minute from one source, and
// from very many, and verifies that the trail grows by a bounded number of bytes per second, and
// that no request is left out.
func TestStrangersDoNotFillTheTrail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                     string
		sources, perSecond, most int // bytes of the trail per second
	}{
		{"one source", 1, 2000, 2000},
		{"many sources", 4000, 4000, 64 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				trail := &recorder{}
				gate := api.NewGate(&api.Env{Now: time.Now, Log: slog.New(slog.DiscardHandler)}, trail)
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); gate.RunTallies(ctx) }()
				refusal := fault.New(fault.BadSignature, "The request is not signed.")
				sent := 0
				for range seconds {
					for i := range tt.perSecond {
						n := i % tt.sources
						r := stranger(fmt.Sprintf("10.%d.%d.1", n/250, n%250))
						if err := gate.Refuse(ctx, r, strings.Repeat("\x7f\x00", 300), refusal); fault.KindOf(err) != fault.BadSignature {
							t.Fatal(err)
						}
						sent++
					}
					time.Sleep(time.Second)
				}
				stop()
				<-done
				size := 0
				for _, r := range trail.records {
					if n := lineSize(t, r); n > 1024 {
						t.Fatalf("a line of %d bytes", n)
					}
					size += lineSize(t, r)
				}
				if size/seconds > tt.most {
					t.Errorf("%d bytes per second, want at most %d", size/seconds, tt.most)
				}
				if n := counted(t, trail.records); n != sent {
					t.Errorf("the trail counts %d requests, %d were sent", n, sent)
				}
			})
		})
	}
}

// TestTalliesOutlastNewSources verifies that a full list of sources whose numbers are due, but not
// recorded yet, forgets none of them for a new source.
func TestTalliesOutlastNewSources(t *testing.T) {
	t.Parallel()
	trail := &recorder{}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	gate := api.NewGate(&api.Env{Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)}, trail)
	sent := 0
	send := func(source int) {
		r := stranger(fmt.Sprintf("10.%d.%d.1", source/250, source%250))
		_ = gate.Refuse(t.Context(), r, "", fault.New(fault.Throttled, ""))
		sent++
	}
	const rounds = 100 // more than the records that all sources may write at once
	for range rounds {
		for source := range api.MaxTallies {
			send(source)
		}
	}
	now = now.Add(2 * api.TallyInterval)
	for source := range 2 * api.MaxTallies {
		send(api.MaxTallies + source)
	}
	alone := len(trail.records)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	gate.RunTallies(ended)
	if n := counted(t, trail.records); n != sent {
		t.Errorf("the trail counts %d requests, %d were sent", n, sent)
	}
	if n := len(trail.records) - alone; n > api.MaxTallies+1 {
		t.Errorf("%d sources have numbers of their own, want at most %d", n, api.MaxTallies+1)
	}
}

// TestStrangersDoNotHideAKey verifies that the refusals of a key keep their records while strangers
// claim it.
func TestStrangersDoNotHideAKey(t *testing.T) {
	t.Parallel()
	trail := &recorder{}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	gate := api.NewGate(&api.Env{Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)}, trail)
	refusal := fault.New(fault.Throttled, "")
	for i := range 20_000 {
		_ = gate.Refuse(t.Context(), stranger(fmt.Sprintf("10.%d.%d.1", i/250, i%250)), "VICTIM", refusal)
	}
	r := stranger("192.0.2.1")
	r.Principal, r.UserAgent = bob, "app"
	before := len(trail.records)
	_ = gate.Refuse(t.Context(), r, "VICTIM", refusal)
	if len(trail.records) != before+1 || trail.records[before].Principal != bob.ARN() {
		t.Error("a refusal of a verified key has no record of its own while strangers claim the key")
	}
}

// TestRefusedKeyDoesNotFillTheTrail verifies that a key whose calls are all refused, or need no
// right, has a bounded number of records, which stand for all its calls.
func TestRefusedKeyDoesNotFillTheTrail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(t, bob)
	w.must(t, "CreateSecret", "SecretName", "a", "SecretData", "x", "VersionId", "v1")
	p := bob
	p.AccessKeyID = "BOB"
	before := len(w.trail.records)
	for range 500 {
		if _, err := w.call(t, p, "GetSecretValue", "SecretName", "a"); fault.KindOf(err) != fault.Denied {
			t.Fatal(err)
		}
		if _, err := w.call(t, p, "DescribeRegions"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.call(t, p, "NoSuchOperation"); err == nil {
			t.Fatal("no error")
		}
	}
	if n := len(w.trail.records) - before; n != 100 {
		t.Errorf("%d records at one time, want 100", n)
	}
	if _, err := w.call(t, policy.Principal{
		Kind:        bob.Kind,
		Account:     account,
		Name:        "eve",
		ID:          "2",
		AccessKeyID: "EVE",
	}, "GetSecretValue", "SecretName", "a"); fault.KindOf(err) == fault.OK {
		t.Fatal(err)
	}
	if last := w.trail.records[len(w.trail.records)-1]; last.AccessKeyID != "EVE" {
		t.Error("one key takes the records of another")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	w.gate.RunTallies(ended)
	if n := counted(t, w.trail.records[before:]); n != 1501 {
		t.Errorf("the trail counts %d calls, 1501 were made", n)
	}
}

// TestTalliesOutlastTheDisk verifies that numbers which cannot be written are written later, and
// that no call goes without a record of its own in the meantime.
func TestTalliesOutlastTheDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(t, bob)
	p := bob
	p.AccessKeyID = "BOB"
	for range 150 {
		if _, err := w.call(t, p, "DescribeRegions"); err != nil {
			t.Fatal(err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	w.trail.refusing(audit.Call)
	w.gate.RunTallies(ended)
	if _, err := w.call(t, p, "DescribeRegions"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a call that cannot be recorded: %v", err)
	}
	w.trail.refusing("")
	w.gate.RunTallies(ended)
	if n := counted(t, w.trail.records); n != 50 {
		t.Errorf("the trail has %d calls that were counted, want 50", n)
	}
}
