package demo

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// results stops the consumers and tells what they saw.
func (p *player) results(ctx context.Context) error {
	p.step = "results"
	p.stopConsumers()
	app, managed, login := p.app.counts(), p.managed.counts(), p.login.counts()
	p.section("RESULT", fmt.Sprintf("what the consumer saw in %s", seconds(p.began)))
	rows := [][]string{
		{"", appSecret, p.engines.Secret, accountSecret},
		{"rotations", "1", fmt.Sprint(p.rotations), "1"},
	}
	for _, row := range []struct {
		name string
		of   func(tally) string
	}{
		{"reads", func(t tally) string { return fmt.Sprint(t.reads) }},
		{"failed reads", func(t tally) string { return fmt.Sprint(t.failedReads) }},
		{"logins", func(t tally) string { return fmt.Sprint(t.logins) }},
		{"refused at the first try, then in", func(t tally) string { return fmt.Sprint(len(t.waits)) }},
		{"  after at most", func(t tally) string { return longest(t.waits) }},
		{"failures (no login possible)", func(t tally) string { return fmt.Sprint(t.failures) }},
	} {
		rows = append(rows, []string{row.name, row.of(app), row.of(managed), row.of(login)})
	}
	p.table(rows)
	p.tellWindow()
	for _, c := range []struct {
		secret string
		tally  tally
	}{{appSecret, app}, {accountSecret, login}} {
		if err := p.expectNoHarm(ctx, c.secret, c.tally); err != nil {
			return err
		}
	}
	refusals := fmt.Sprint(len(app.waits))
	if err := p.expect(ctx, appSecret+": logins refused, though app secrets overlap", "0", refusals); err != nil {
		return err
	}
	if err := p.expectUnnoticed(ctx, managed); err != nil {
		return err
	}
	p.printf("  held: every step checked, no read failed, the consumer always got in\n")
	return p.verifyTrail(ctx, app.reads+managed.reads+login.reads)
}

// longest is "-" where there was no wait.
func longest(waits []time.Duration) string {
	if len(waits) == 0 {
		return "-"
	}
	return milliseconds(slices.Max(waits))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// tellWindow says what a producer with one account cannot spare its consumers.
func (p *player) tellWindow() {
	p.printf(
		"\n  A producer that changes one account has a window (here %s), from its registration to the\n",
		milliseconds(p.window),
	)
	p.printf("  move of ACSCurrent, in which ACSCurrent is refused; the consumer then reads once more.\n")
	p.printf("  With two accounts in turn, or credentials that overlap, as in %s, there is none.\n\n", p.engines.Secret)
}

func (p *player) expectNoHarm(ctx context.Context, secret string, t tally) error {
	const want = "0 failed reads, 0 failures"
	got := fmt.Sprintf("%d failed reads, %d failures", t.failedReads, t.failures)
	if t.trouble != nil {
		got += ", the first: " + t.trouble.Error()
	}
	return p.expect(ctx, "consumer of "+secret, want, got)
}
