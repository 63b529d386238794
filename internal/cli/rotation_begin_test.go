package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// TestBrokenAreCountedByEvidence verifies that the question of an emergency counts consumers and
// readers apart, also those that the answer does not name.
func TestBrokenAreCountedByEvidence(t *testing.T) {
	t.Parallel()
	list := func(count int, evidence string) (list []kms.SecretConsumer) {
		for n := range count {
			list = append(list, kms.SecretConsumer{Consumer: fmt.Sprintf("app-%d", n), Evidence: evidence})
		}
		return list
	}
	for _, tt := range []struct {
		out        kms.EmergencyRotationResponse
		has, lacks []string
	}{
		{
			kms.EmergencyRotationResponse{Breaking: list(100, kms.EvidenceAcknowledged), BreakingCount: 150},
			[]string{
				"Consumers seen lately, refused until they have fetched the new one (150):",
				"50 more; keyturn secret consumers db lists all.",
			},
			[]string{"Readers"},
		},
		{
			kms.EmergencyRotationResponse{
				Breaking:              list(100, kms.EvidenceAcknowledged),
				BreakingCount:         130,
				BreakingInferredCount: 20,
			},
			[]string{"fetched the new one (110):", "\n10 more;", "read again (20):\n20 more;"},
			nil,
		},
		{
			kms.EmergencyRotationResponse{
				Breaking:              list(2, kms.EvidenceInferred),
				BreakingCount:         2,
				BreakingInferredCount: 2,
				Unknown:               list(1, kms.EvidenceInferred),
				UnknownCount:          1,
			},
			[]string{"read again (2):", "nothing is known of them (1):"},
			[]string{"Consumers seen", "more;"},
		},
	} {
		var b bytes.Buffer
		tt.out.SecretName = "db"
		if err := printBroken(&b, &tt.out); err != nil {
			t.Fatal(err)
		}
		for _, part := range tt.has {
			if !strings.Contains(b.String(), part) {
				t.Errorf("without %q:\n%.900s", part, &b)
			}
		}
		for _, part := range tt.lacks {
			if strings.Contains(b.String(), part) {
				t.Errorf("with %q:\n%.900s", part, &b)
			}
		}
	}
}

// TestEmergencyNamesBothCredentials verifies that the question and the end of an emergency name the
// previous credential, too, where it works, and that the command fails where it may still work
// afterwards.
func TestEmergencyNamesBothCredentials(t *testing.T) {
	t.Parallel()
	for previous, want := range map[string]string{
		"":   "The credential in version v2 of db would stop working.",
		"v1": "The credentials in versions v2 and v1 of db would stop working.",
	} {
		out := &kms.EmergencyRotationResponse{SecretName: "db", CurrentVersionID: "v2", PreviousVersionID: previous}
		if got := wouldStop(out); got != want {
			t.Errorf("the question is %q, want %q", got, want)
		}
	}
	for _, tt := range []struct {
		earlier string
		retired bool
		text    string
	}{
		{"v1", true, "and the credentials in versions v2 and v1 are useless."},
		{"v1", false, "and the previous credential is useless. The target may still accept v1."},
		{"", false, "and the previous credential is useless."},
	} {
		end := &kms.DescribeRotationResponse{
			SecretName:         "db",
			Outcome:            kms.OutcomeSucceeded,
			CandidateVersionID: "v3",
			BaseVersionID:      "v2",
			PromoteTime:        time.Unix(1e9, 0),
			PreviousRetired:    true,
			EarlierVersionID:   tt.earlier,
			EarlierRetired:     tt.retired,
		}
		if tt.earlier != "" && !tt.retired {
			end.Reason = "The target may still accept v1."
		}
		if _, ok, got := retired(end); ok != (tt.earlier == "" || tt.retired) || !strings.HasSuffix(got, tt.text) {
			t.Errorf("the end is %q (%v), want %q", got, ok, tt.text)
		}
	}
}

// TestEmergencyPrintsAFindingOnce verifies that a finding which an emergency both overrides and
// leaves is printed once in full, and named in the other list.
func TestEmergencyPrintsAFindingOnce(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	printEmergencyFindings(&b, []kms.RotationFinding{
		{Code: "both", Verdict: "needs-consent", AccountName: "'app'@'h'", Text: "Two.", Fix: "Remove one.", Outlasts: true},
		{Code: "over", Verdict: "impossible", Text: "Closed.", Fix: "Open it."},
		{Code: "left", Verdict: "note", Text: "A job.", Fix: "Drop it.", Outlasts: true},
		{Code: "secrets", Verdict: "impossible", Text: "A limit.", Fix: "Remove it.", Outlasts: true},
	})
	const want = `
These findings would stop a planned rotation. The answer yes overrides them:
both: Two. Remove one.
over: Closed. Open it.
secrets: A limit. Remove it.

The emergency does not remove these, and the holder of the credential can use them afterwards:
both: 'app'@'h', see above.
left: A job. Drop it.
secrets: see above.
`
	if b.String() != want {
		t.Errorf("printed: %s\nwant: %s", &b, want)
	}
}

// TestCancelSaysWhatIsLeft verifies that a cancelled rotation is described by the state that it is
// in now: only before the promotion is anything taken back.
func TestCancelSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	const kept = "The retirement was cancelled: the target still accepts the credential of version v1. One " +
		"scheduled event runs as 'app' and can set a password again. Run: ALTER EVENT `d`.`e` DISABLE;"
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		r    kms.DescribeRotationResponse
		want string
	}{
		{
			kms.DescribeRotationResponse{State: kms.RotationReverting},
			"The rotation of db ends once the target has taken back what was sent; keyturn rotation status db shows when " +
				"that is done.",
		},
		{
			kms.DescribeRotationResponse{State: kms.RotationDone, Outcome: kms.OutcomeSucceeded, Reason: kept},
			"The rotation of db is done, and version v2 stays current. " + kept,
		},
		{
			kms.DescribeRotationResponse{
				State:   kms.RotationDone,
				Outcome: kms.OutcomeSucceeded,
				Trigger: "emergency",
				Reason:  kept,
			},
			"The rotation of db is done, and version v2 stays current. " + kept +
				" The credential of version v1 may have leaked: make it useless at the target.",
		},
		{
			kms.DescribeRotationResponse{State: kms.RotationGrace, GraceUntil: at},
			"The undo is cancelled: version v2 of db stays current, and the grace period goes on until 2026-01-02T03:04:05Z.",
		},
		{
			kms.DescribeRotationResponse{State: kms.RotationRetiring},
			"The undo is cancelled: version v2 of db stays current, and the previous credential is being retired; keyturn " +
				"rotation status db shows when that is done.",
		},
		{
			kms.DescribeRotationResponse{
				State:   kms.RotationQuarantined,
				Outcome: kms.OutcomeNeedsOperator,
				Reason:  "Not known.",
			},
			"db is quarantined. Not known. keyturn rotation repair db explains what can be done.",
		},
		{
			kms.DescribeRotationResponse{
				State:   kms.RotationQuarantined,
				Outcome: kms.OutcomeNeedsOperator,
				Mode:    "reapply",
			},
			"The repair of db is cancelled; it is quarantined again.",
		},
	} {
		tt.r.SecretName, tt.r.CandidateVersionID, tt.r.BaseVersionID = "db", "v2", "v1"
		if got := cancelled(&tt.r); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.r.State, got, tt.want)
		}
	}
}

// TestUndone verifies that an undo is waited for until its version is current again, or stays as it
// was.
func TestUndone(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		r        kms.DescribeRotationResponse
		over, ok bool
		text     string
	}{
		{kms.DescribeRotationResponse{State: kms.RotationUndoing, CandidateVersionID: "v2"}, false, false, ""},
		{
			kms.DescribeRotationResponse{State: kms.RotationGrace, CandidateVersionID: "v1", GraceUntil: at},
			true,
			true,
			"Version v1 of db is current again. The credential that it has replaced works until 2026-01-02T03:04:05Z.",
		},
		{
			kms.DescribeRotationResponse{State: kms.RotationGrace, CandidateVersionID: "v2", Reason: "Not undone: no."},
			true, false, "Version v2 of db stays current. Not undone: no.",
		},
		{
			kms.DescribeRotationResponse{
				State:              kms.RotationQuarantined,
				Outcome:            kms.OutcomeNeedsOperator,
				CandidateVersionID: "v1",
				Reason:             "Neither works.",
			},
			true, false, "The rotation of db needs an operator: keyturn rotation repair db explains. Neither works.",
		},
	} {
		tt.r.SecretName = "db"
		if over, ok, text := undone("v1")(&tt.r); over != tt.over || ok != tt.ok || text != tt.text {
			t.Errorf("%s, %s: over %t, ok %t, %q", tt.r.State, tt.r.CandidateVersionID, over, ok, text)
		}
	}
}

// TestStuckIsShown verifies that the status of a secret that nothing can be done about says so, and
// that the explanation of a repair offers none.
func TestStuckIsShown(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		kms.SkippedNotBound: "pg, to which it is not bound now",
		kms.SkippedTaken:    "pg, where another secret has its account",
		"":                  "pg\n",
	} {
		var b bytes.Buffer
		r := &kms.DescribeRotationResponse{SecretName: "db", TargetName: "pg", ProbeSkippedCode: code}
		if err := printStatus(&b, r); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%q: %v\n%s", code, err, b.String())
		}
	}
}
