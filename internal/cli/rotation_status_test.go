package cli

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/kms"
)

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
