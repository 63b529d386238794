package cli

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// TestFailedUndoIsNotAdvised verifies that a previous credential that the target has rejected is
// neither a way out of a quarantine nor said to work.
func TestFailedUndoIsNotAdvised(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := &kms.DescribeRotationResponse{
		SecretName:         "db",
		State:              kms.RotationQuarantined,
		Outcome:            kms.OutcomeNeedsOperator,
		Mode:               "reapply",
		CandidateVersionID: "v2",
		BaseVersionID:      "v1",
		GraceUntil:         at.Add(time.Hour),
		UndoPossible:       true,
	}
	show := func() string {
		var b bytes.Buffer
		if err := printStatus(&b, r); err != nil {
			t.Fatal(err)
		}
		return explanation(r) + b.String()
	}
	if text := show(); !strings.Contains(text, "keyturn rotation undo db") || !strings.Contains(text, "undo possible") {
		t.Errorf("no undo in\n%s", text)
	}
	r.PreviousDeadTime = at
	const rejected = "An undo would probably fail: " +
		"the target has rejected the previous credential, of version v1, or its account may have got another one, " +
		"at 2026-01-02T03:04:05Z"
	if text := show(); strings.Contains(text, "rotation undo") || strings.Contains(text, "undo possible") ||
		!strings.Contains(text, rejected) {
		t.Errorf("after an undo that failed:\n%s", text)
	}
	r.State, r.Outcome, r.PromoteTime = kms.RotationGrace, "", at
	_, _, text := promoted(r)
	if text += show(); strings.Contains(text, "works until") {
		t.Errorf("a previous credential that is dead:\n%s", text)
	}
}

// TestPrintWait verifies that a command that waits for a rotation says once what the rotation waits
// for and why, and not among the answers that a program reads.
func TestPrintWait(t *testing.T) {
	t.Parallel()
	for _, output := range []string{"table", "json"} {
		synctest.Test(t, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			f := &follower{
				env: &env{globals: globals{Output: output}, stdout: &stdout, stderr: &stderr},
				out: &stdout,
			}
			next := time.Now().Add(time.Minute)
			r := &kms.DescribeRotationResponse{
				State:           "prepared",
				NextAttemptTime: next,
				WaitsFor:        "the next attempt, at " + when(next),
				Reason:          "No answer.",
			}
			for range 5 {
				f.printWait(r)
				time.Sleep(time.Second)
			}
			r.NextAttemptTime = next.Add(time.Minute)
			f.printWait(r) // a wait that does not last is not printed
			want := "Waiting for the next attempt, at " + when(next) + ". The last attempt: No answer.\n"
			toPerson, toProgram := stdout.String(), stderr.String()
			if output == "json" {
				toPerson, toProgram = toProgram, toPerson
			}
			if toPerson != want || toProgram != "" {
				t.Errorf("%s: printed\n%sand\n%swant\n%s", output, toPerson, toProgram, want)
			}
		})
	}
}

// TestEndOfAnEmergency verifies that a command that waits for an emergency prints at its end what
// the target was seen to have, and what the emergency has left.
func TestEndOfAnEmergency(t *testing.T) {
	t.Parallel()
	r := &kms.DescribeRotationResponse{
		SecretName:         "db",
		CandidateVersionID: "v2",
		Outcome:            kms.OutcomeSucceeded,
		PromoteTime:        time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		PreviousRetired:    true,
		Reason:             "Another password was removed.",
		Advice:             "Sessions stay open.",
	}
	const want = "Version v2 of db is current since 2026-01-02T03:04:05Z, and the previous credential is useless. " +
		"Another password was removed. Sessions stay open."
	if over, ok, text := retired(r); !over || !ok || text != want {
		t.Errorf("%v, %v, %q, want %q", over, ok, text, want)
	}
	r.PreviousRetired, r.Reason, r.Advice = false, "The retirement was cancelled.", ""
	const still = "Version v2 of db is current since 2026-01-02T03:04:05Z, but the previous credential was not retired. " +
		"The retirement was cancelled."
	if over, ok, text := retired(r); !over || ok || text != still {
		t.Errorf("after a retirement that was cancelled: %v, %v, %q, want %q", over, ok, text, still)
	}
}

// TestDriftMayBeALeak verifies that the explanation of a quarantine names an emergency exactly
// where the server says that one begins.
func TestDriftMayBeALeak(t *testing.T) {
	t.Parallel()
	for _, want := range []bool{false, true} {
		for _, mode := range []string{"rotate", "reapply"} {
			text := explanation(&kms.DescribeRotationResponse{
				SecretName:         "db",
				Outcome:            kms.OutcomeNeedsOperator,
				Mode:               mode,
				Strategy:           "overlap",
				EmergencyPossible:  want,
				CandidateVersionID: "v1",
				BaseVersionID:      "v1",
			})
			if strings.Contains(text, "\n  keyturn rotation emergency db\n      replaces the credential at once") != want {
				t.Errorf("%s, %v:\n%s", mode, want, text)
			}
		}
	}
}

// TestColumnsStayAligned verifies that a row without its last cells leaves the columns of the other
// rows as they are, and that no line ends in spaces.
func TestColumnsStayAligned(t *testing.T) {
	t.Parallel()
	tab := newTable("SECRET", "NEXT DUE", "REASON")
	tab.row("a", "2026-12-01T00:00:00Z", "")
	tab.row("b", "", "because")
	tab.row("c", "", "")
	var b strings.Builder
	if err := tab.write(&b); err != nil {
		t.Fatal(err)
	}
	want := "SECRET  NEXT DUE              REASON\na       2026-12-01T00:00:00Z\n" +
		"b                             because\nc\n"
	if b.String() != want {
		t.Errorf("\n%swant\n%s", b.String(), want)
	}
}

// TestStatusNamesTheDeletion verifies that the status of a secret that is to be deleted says when,
// and the command that cancels it.
func TestStatusNamesTheDeletion(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	var b strings.Builder
	if err := printStatus(&b, &kms.DescribeRotationResponse{SecretName: "db", PlannedDeleteTime: at}); err != nil {
		t.Fatal(err)
	}
	if want := "2026-12-01T00:00:00Z; keyturn secret restore db cancels that"; !strings.Contains(b.String(), want) {
		t.Errorf("without %q:\n%s", want, b.String())
	}
}

// TestListNamesTheDeletion verifies that the list marks the secret that is to be deleted, and no
// other.
func TestListNamesTheDeletion(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	var b strings.Builder
	err := printRotations(&b, &kms.ListRotationsResponse{Rotations: []kms.ListedRotation{
		{SecretName: "a", TargetName: "pg", State: "idle", PlannedDeleteTime: at},
		{SecretName: "b", TargetName: "pg", State: "idle"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := "SECRET  TARGET  STATE                CREDENTIAL  NEXT DUE  REASON\n" +
		"a       pg      idle, to be deleted\nb       pg      idle\n"
	if b.String() != want {
		t.Errorf("\n%swant\n%s", b.String(), want)
	}
}

// TestRepairSaysWhenItIsTried verifies that a repair which waits for its next try says until when.
func TestRepairSaysWhenItIsTried(t *testing.T) {
	t.Parallel()
	r := &kms.DescribeRotationResponse{SecretName: "db", WaitsFor: "the next attempt, at 2026-12-01T00:00:00Z"}
	if got := repairBegun(r); got != "The repair of db has begun" {
		t.Error(got)
	}
	r.NextAttemptTime = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	if got := repairBegun(r); got != "The repair of db waits for the next attempt, at 2026-12-01T00:00:00Z" {
		t.Error(got)
	}
}

// TestRepairExplainsTheEmergency verifies that an emergency which a quarantine does not allow yet
// is named with what it waits for.
func TestRepairExplainsTheEmergency(t *testing.T) {
	t.Parallel()
	r := &kms.DescribeRotationResponse{SecretName: "db", Outcome: kms.OutcomeNeedsOperator}
	const want = "keyturn rotation emergency db\n      not now: end the quarantine first by one of the ways above."
	if text := explanation(r); !strings.Contains(text, want) {
		t.Errorf("without %q:\n%s", want, text)
	}
	r.EmergencyPossible = true
	if text := explanation(r); strings.Contains(text, want) || !strings.Contains(text, "keyturn rotation emergency db") {
		t.Errorf("with %q:\n%s", want, text)
	}
	const others = "one that was set by hand may go on working"
	for strategy, may := range map[string]bool{"overlap": true, "double": true, "single": false} {
		r.Strategy = strategy
		if text := explanation(r); strings.Contains(text, others) != may {
			t.Errorf("%s: %q should be there: %t\n%s", strategy, others, may, text)
		}
	}
}

// TestStatusDatesTheFindings verifies that the status says of the findings of a check whether a
// rotation has ended, or made its promotion, since.
func TestStatusDatesTheFindings(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := at.Add(time.Minute)
	for _, tt := range []struct {
		promoted, ended time.Time
		findings        int
		want            string
	}{
		{later, later, 1, "2026-01-02T03:04:05Z (before the last rotation ended; keyturn rotation check db asks again)\n"},
		{later, time.Time{}, 1, "2026-01-02T03:04:05Z (before the promotion; keyturn rotation check db asks again)\n"},
		{at.Add(-time.Hour), at, 1, "2026-01-02T03:04:05Z\n"},
		{later, later, 0, "2026-01-02T03:04:05Z\n"},
	} {
		var b strings.Builder
		err := printStatus(&b, &kms.DescribeRotationResponse{
			SecretName:    "db",
			PromoteTime:   tt.promoted,
			EndTime:       tt.ended,
			CheckTime:     at,
			CheckFindings: make([]kms.RotationFinding, tt.findings),
		})
		if err != nil || !strings.Contains(b.String(), tt.want) {
			t.Errorf("without %q: %v\n%s", tt.want, err, &b)
		}
	}
}
