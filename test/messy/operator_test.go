package messy

import (
	"errors"
	"regexp"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// operations are the commands of keyturn rotation that an advice can name, with what each does.
var operations = map[string]func(*performance, *kms.DescribeRotationResponse) error{
	"cancel": func(f *performance, _ *kms.DescribeRotationResponse) error {
		return second(f.CancelRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret}))
	},
	"undo": func(f *performance, _ *kms.DescribeRotationResponse) error {
		return second(f.UndoRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret}))
	},
	"end-grace": func(f *performance, _ *kms.DescribeRotationResponse) error {
		return second(f.EndRotationGrace(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret}))
	},
	"retry": func(f *performance, _ *kms.DescribeRotationResponse) error {
		return second(f.RepairRotation(f.t.Context(), &kms.RepairRotationRequest{
			SecretName:   f.secret,
			RepairAction: kms.RepairProbe,
		}))
	},
	"repair": func(f *performance, r *kms.DescribeRotationResponse) error {
		if len(r.RepairActions) == 0 {
			return errors.New("there is nothing to repair")
		}
		return second(f.RepairRotation(f.t.Context(), &kms.RepairRotationRequest{
			SecretName:   f.secret,
			RepairAction: r.RepairActions[0],
		}))
	},
}

var operation = regexp.MustCompile(`keyturn rotation (cancel|undo|repair|retry|end-grace)`)

// patience is how long an operator repeats what the advice of a state names.
const patience = 4 * stuck

// follow does what the advice of a rotation that lasts names, as an operator would who tries one
// command after another for a while. It reports whether the rotation has ended.
func (f *performance) follow(what string, r *kms.DescribeRotationResponse) (*kms.DescribeRotationResponse, bool) {
	f.t.Helper()
	f.count("lasting", 1)
	f.count("lasting_"+r.State, 1)
	f.t.Logf("%s lasts: state %s, %s; steps %s", what, r.State, r.Reason, tail(r))
	var advised []string
	var refused error
	ended := false
	for deadline := time.Now().Add(patience); !ended && time.Now().Before(deadline); {
		if names := operation.FindAllStringSubmatch(r.Advice, -1); len(names) > 0 {
			name := names[len(advised)%len(names)][1]
			advised = append(advised, name)
			refused = operations[name](f, r)
		}
		r, ended = f.wait()
		if ended && r.State == "quarantined" && operation.FindString(r.Advice) != "" && len(r.RepairActions) > 0 {
			ended = false // there is a command for that, too
		}
	}
	if !ended || len(advised) == 0 {
		f.fails(f.t, "without_end", "%s: state %s, %s; advice %q, followed %v: %v; steps %s", what, r.State, r.Reason,
			r.Advice, advised, refused, tail(r))
		return r, false
	}
	f.count("ended_by_"+advised[len(advised)-1], 1)
	return r, true
}
