package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/kms"
)

// following are the flags of a command that can wait for what it has asked for.
type following struct {
	Wait    bool          `help:"Wait for the end, and exit with 1 if it is not the requested one."`
	Timeout time.Duration `help:"Wait for at most this long." default:"5m"`
}

type rotationStatus struct {
	Name    string        `arg:"" help:"Name or ARN of the secret."`
	Watch   bool          `help:"Go on printing what happens, until the rotation has ended or needs an operator."`
	Timeout time.Duration `help:"Watch for at most this long." default:"1h"`
}

func (c *rotationStatus) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	r, err := client.DescribeRotation(e.ctx, &kms.SecretNameRequest{SecretName: c.Name})
	if err != nil {
		return err
	}
	if e.json() {
		err = printResponse(e.stdout, r)
	} else {
		err = printStatus(e.stdout, r)
	}
	if err != nil || !c.Watch || !r.InProgress && e.json() {
		return err
	}
	f := &follower{
		env:     e,
		client:  client,
		secret:  r.SecretName,
		shown:   len(r.Steps),
		last:    r,
		verdict: watched,
		out:     e.stdout,
	}
	return f.follow(c.Timeout)
}

// readable describes the rotation of a secret; of one that is not rotated, and for a caller who may
// not read it, the answer is empty.
func (e *env) readable(client *kms.Client, name string) (*kms.DescribeRotationResponse, error) {
	r, err := client.DescribeRotation(e.ctx, &kms.SecretNameRequest{SecretName: name})
	if errors.Is(err, kms.ErrNoPermission) {
		return &kms.DescribeRotationResponse{}, nil
	}
	return r, err
}

func printStatus(w io.Writer, r *kms.DescribeRotationResponse) error {
	t := newTable()
	add := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	add("secret", r.SecretName)
	add("target", r.TargetName+notAsked(r.ProbeSkippedCode))
	if !r.PlannedDeleteTime.IsZero() {
		add("deleted at", when(r.PlannedDeleteTime)+"; "+fault.Command("secret restore", r.SecretName)+" cancels that")
	}
	add("state", r.State)
	add("waits for", r.WaitsFor)
	switch {
	case r.Outcome == kms.OutcomeNeedsOperator && len(r.RepairActions) > 0:
		add("repair", fault.Command("rotation repair", r.SecretName)+" explains what can be done")
	case len(r.RepairActions) > 0:
		add("retry", fault.Command("rotation retry", r.SecretName)+" tries again now")
	}
	add("failing since", when(r.FailingSince))
	findings := checked(r)
	add("reason", withoutFindings(r.Reason, findings))
	add("advice", r.Advice)
	if r.RotationID != "" {
		mode := r.Mode
		if isRepair(r) {
			mode = "repair"
		}
		add("rotation", fmt.Sprintf("%s (%s)", r.RotationID, joined(mode, r.Trigger)))
	}
	if r.ConfiguredStrategy == "" && !isRepair(r) { // a repair is not made with the strategy of rotations
		add("strategy", r.Strategy)
	}
	add("version", r.CandidateVersionID)
	if r.BaseVersionID != r.CandidateVersionID {
		add("replaces", r.BaseVersionID)
	}
	if r.Attempt > 0 {
		add("attempts", fmt.Sprintf("%d, with candidate %d", r.Attempt, max(r.Candidates, 1)))
	}
	add("began", when(r.StartTime))
	add("promoted", when(r.PromoteTime))
	addPrevious(add, r)
	add("ended", when(r.EndTime))
	if r.TargetName != "" { // a secret without a target has no credential to probe
		add("credential", credentialText(r))
	}
	addSettings(add, r)
	return errors.Join(t.write(w), printHolders(w, r), printSteps(w, stepsWithoutFindings(r.Steps, findings)),
		printFindings(w, findings))
}

// notAsked completes the name of a target that is not asked about a secret until an operator has
// changed something.
func notAsked(code string) string {
	switch code {
	case kms.SkippedNotBound:
		return ", to which it is not bound now"
	case kms.SkippedTaken:
		return ", where another secret has its account"
	}
	return ""
}

// checked returns what the last check has found about the strategy that rotations of the secret
// use.
func checked(r *kms.DescribeRotationResponse) []kms.RotationFinding {
	strategy := r.CheckStrategy
	if strategy == "" && !isRepair(r) { // a repair is not made with the strategy of rotations
		strategy = r.Strategy
	}
	own, _ := findingsOf(strategy, r.CheckFindings)
	return own
}

// isRepair reports whether r gives the target again what it should have.
func isRepair(r *kms.DescribeRotationResponse) bool { return r.Mode == string(rotation.Reapply) }

// isRehearsal reports whether r ends without a promotion.
func isRehearsal(r *kms.DescribeRotationResponse) bool { return r.Mode == string(rotation.Rehearse) }

// joined joins words that are not empty.
func joined(words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), ", ")
}

// addPrevious adds how long the previous credential works, or can be had back.
func addPrevious(add func(name, value string), r *kms.DescribeRotationResponse) {
	switch {
	case !inGrace(r) && !undoable(r):
	case !r.PreviousDeadTime.IsZero():
		add("previous", "probably not accepted by the target since "+when(r.PreviousDeadTime))
	case undoable(r):
		until := "now; a repair ends that"
		if !r.GraceUntil.IsZero() {
			until = "until the repair, and then until " + when(r.GraceUntil)
		}
		add("undo possible", until)
	default:
		add("previous works until", when(r.GraceUntil))
		if r.GraceLimitTime.After(r.GraceUntil) {
			add("and at the latest", when(r.GraceLimitTime)+", while a consumer holds it")
		}
	}
}

// undoable reports whether a quarantine interrupts a grace period, so that an undo is possible.
func undoable(r *kms.DescribeRotationResponse) bool {
	return r.Outcome == kms.OutcomeNeedsOperator && r.UndoPossible
}

// addSettings adds when and how the secret is rotated.
func addSettings(add func(name, value string), r *kms.DescribeRotationResponse) {
	add("automatic", r.AutomaticRotation)
	for _, setting := range rotationSettings {
		if setting.param != "TargetName" { // it is shown further up
			add(setting.label, setting.show(setting.of(r)))
		}
	}
	add("last rotation", when(r.LastRotationDate))
	add("next due", when(r.NextRotationDate))
	add("checked", checkedAt(r))
	add("not checked", r.CheckUnchecked)
	for _, p := range r.Pauses {
		add("paused", pauseLine(p, r.SecretName, r.TargetName))
	}
}

// checkedAt returns the time of the last check. It adds that the check is older than the end of the
// last rotation, which may have changed its findings.
func checkedAt(r *kms.DescribeRotationResponse) string {
	before := ""
	switch {
	case len(checked(r)) == 0:
	case r.CheckTime.Before(r.EndTime):
		before = "before the last rotation ended"
	case r.CheckTime.Before(r.PromoteTime):
		before = "before the promotion"
	}
	if before == "" {
		return when(r.CheckTime)
	}
	return fmt.Sprintf("%s (%s; %s asks again)", when(r.CheckTime), before, fault.Command("rotation check", r.SecretName))
}

// credentialText says what the target answered about the credential in use, and when.
func credentialText(r *kms.DescribeRotationResponse) string {
	if r.ProbeTime.IsZero() {
		return credentialWord(r.CredentialState)
	}
	return credentialWord(r.CredentialState) + ", as the target said at " + when(r.ProbeTime)
}

// credentialWord returns a credential state in words. It is unknown until the target has been
// asked: after a promotion, a restore or a change of settings.
func credentialWord(state string) string {
	if state == rotation.CredentialUnknown {
		return "not probed yet"
	}
	return state
}

// span writes a duration of the API, such as 604800s, in its largest whole unit: 7d.
func span(text string) string {
	seconds, err := strconv.ParseInt(strings.TrimSuffix(text, "s"), 10, 64)
	if err != nil || seconds <= 0 {
		return text
	}
	for _, unit := range []struct {
		name    string
		seconds int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}} {
		if seconds%unit.seconds == 0 {
			return strconv.FormatInt(seconds/unit.seconds, 10) + unit.name
		}
	}
	return strconv.FormatInt(seconds, 10) + "s"
}

// printHolders names those for whom the end of a grace waits, and whence it is known.
func printHolders(w io.Writer, r *kms.DescribeRotationResponse) error {
	if len(r.WaitingFor) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nStill with another version, of those seen lately: %d\n", r.WaitingForCount)
	return printConsumers(w, r.WaitingFor)
}

func printSteps(w io.Writer, steps []kms.RotationStep) error {
	if len(steps) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable("TIME", "STATE", "WHAT HAPPENED")
	for _, s := range steps {
		t.row(when(s.Time), s.State, happened(s))
	}
	return t.write(w)
}

func happened(s kms.RotationStep) string {
	text := cmp.Or(s.Description, s.Event)
	if s.Text != "" {
		text += ": " + s.Text
	}
	return text
}

// verdictOf judges a rotation: over says that the waiting ends, and text why. ok says that the
// rotation went as requested.
type verdictOf func(r *kms.DescribeRotationResponse) (over, ok bool, text string)

// failedEnd is the verdict on a rotation that ended without a change, or cannot end.
func failedEnd(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	switch r.Outcome {
	case kms.OutcomeUnchanged:
		return true, false, fmt.Sprintf("The rotation of %s was given up; the credential in use is untouched. %s",
			r.SecretName, r.Reason)
	case kms.OutcomeNeedsOperator:
		return true, false, fault.Message("The rotation of %s needs an operator: keyturn rotation repair %s explains. %s",
			r.SecretName, r.SecretName, fault.Text(r.Reason))
	}
	return false, false, ""
}

func promoted(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	if r.PromoteTime.IsZero() {
		return failedEnd(r)
	}
	text = fmt.Sprintf("Version %s of %s is current since %s.", r.CandidateVersionID, r.SecretName, when(r.PromoteTime))
	if inGrace(r) && r.PreviousDeadTime.IsZero() {
		text += fmt.Sprintf(" The previous credential works until %s.", when(r.GraceUntil))
	}
	return true, true, text
}

// inGrace reports whether the grace period has begun and has not ended.
func inGrace(r *kms.DescribeRotationResponse) bool { return r.State == kms.RotationGrace }

// retired is the end of an emergency: the leaked credential is useless, unless its retirement was
// cancelled, and so is one that was in its grace period.
func retired(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	if r.Outcome == kms.OutcomeSucceeded && !r.PromoteTime.IsZero() {
		end := "and the previous credential is useless."
		switch {
		case !r.PreviousRetired:
			end = "but the previous credential was not retired."
		case r.EarlierRetired:
			end = fmt.Sprintf("and the credentials in versions %s and %s are useless.", r.BaseVersionID, r.EarlierVersionID)
		}
		text = fmt.Sprintf("Version %s of %s is current since %s, %s",
			r.CandidateVersionID, r.SecretName, when(r.PromoteTime), end)
		for _, more := range []string{r.Reason, r.Advice} {
			if more != "" {
				text += " " + more
			}
		}
		return true, r.PreviousRetired && (r.EarlierVersionID == "" || r.EarlierRetired), text
	}
	return failedEnd(r)
}

func rehearsed(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	switch r.Outcome {
	case kms.OutcomeSucceeded:
		return true, true, fmt.Sprintf("Target %s took a new credential for %s, a login with it succeeded, and it was "+
			"taken back. A rotation would work.", r.TargetName, r.SecretName)
	case kms.OutcomeUnchanged:
		return true, false, fmt.Sprintf("A rotation of %s would not work; the credential in use is untouched. %s",
			r.SecretName, r.Reason)
	}
	return failedEnd(r)
}

// repaired is the end of a quarantine: the rotation has ended, or was promoted before.
func repaired(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	switch {
	case r.Outcome == kms.OutcomeNeedsOperator:
		return failedEnd(r)
	case r.Outcome == "" && !inGrace(r):
		return false, false, ""
	}
	return true, true, fmt.Sprintf("The target accepts the current version of %s.", r.SecretName)
}

// graceEnded is the end of a grace period that was ended: the previous credential is useless.
func graceEnded(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	switch {
	case r.Outcome == kms.OutcomeSucceeded && r.PreviousRetired:
		text = fmt.Sprintf("The previous credential of %s, in version %s, is useless.", r.SecretName, r.BaseVersionID)
		if r.Reason != "" {
			text += " " + r.Reason
		}
		return true, true, text
	case r.Outcome == kms.OutcomeSucceeded:
		return true, false, fmt.Sprintf("The previous credential of %s was not retired. %s", r.SecretName, r.Reason)
	}
	return failedEnd(r)
}

// undone is the end of an undo that makes a version current again.
func undone(version string) verdictOf {
	return func(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
		switch {
		case r.State == kms.RotationUndoing:
			return false, false, ""
		case r.CandidateVersionID == version && r.Outcome != kms.OutcomeNeedsOperator:
			text = fmt.Sprintf("Version %s of %s is current again.", version, r.SecretName)
			if inGrace(r) && r.PreviousDeadTime.IsZero() {
				text += fmt.Sprintf(" The credential that it has replaced works until %s.", when(r.GraceUntil))
			}
			return true, true, text
		case r.Outcome == kms.OutcomeNeedsOperator:
			return failedEnd(r)
		}
		return true, false, fmt.Sprintf("Version %s of %s stays current. %s", r.CandidateVersionID, r.SecretName, r.Reason)
	}
}

func watched(r *kms.DescribeRotationResponse) (over, ok bool, text string) {
	return !r.InProgress, true, fmt.Sprintf("The rotation of %s is in state %s.", r.SecretName, r.State)
}

const (
	firstPoll = 50 * time.Millisecond
	lastPoll  = time.Second
)

// follower asks for the state of a rotation until a verdict can be given.
type follower struct {
	*env
	client  *kms.Client
	secret  string
	id      string // of the rotation, when named
	named   bool
	verdict verdictOf

	out   io.Writer // where steps are printed; standard error when nil, so that the result stands alone
	shown int       // how many steps were printed
	last  *kms.DescribeRotationResponse

	waits wait // the last one
}

// wait is what a rotation waits for until a time, such as its next attempt.
type wait struct {
	state string
	until time.Time
	since time.Time // when it was seen first
	shown bool
}

// longWait is how long a wait lasts before it is printed.
const longWait = 2 * time.Second

// poll calls ask until that is over, for at most that long. The waits between grow, and are no
// shorter than an answer takes. A server that does not answer for a while is asked again; a refusal
// ends it. late says that the time has passed, and err is the last error of ask.
func poll(
	ctx context.Context, timeout time.Duration, ask func(context.Context) (over bool, err error),
) (late bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for wait := firstPoll; ; wait = min(2*wait, lastPoll) {
		began := time.Now()
		over, err := ask(ctx)
		var service *kms.Error
		if over || errors.As(err, &service) && service.HTTPStatus < 500 {
			return false, err
		}
		t := time.NewTimer(max(wait, time.Since(began)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return true, err
		}
	}
}

// follow waits for at most that long.
func (f *follower) follow(timeout time.Duration) error {
	late, err := poll(f.ctx, timeout, func(ctx context.Context) (over bool, err error) {
		r, err := f.client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: f.secret})
		if err != nil {
			return false, err
		}
		over, err = f.look(ctx, r)
		return over || err != nil, err
	})
	if late {
		return f.late(timeout, err)
	}
	return err
}

// look prints what is new, and ends the waiting when there is a verdict.
func (f *follower) look(ctx context.Context, r *kms.DescribeRotationResponse) (over bool, err error) {
	if f.named && r.RotationID != f.id && r.EndedRotationID != f.id {
		if over, err := f.elsewhere(ctx, r); over || err != nil || !f.endedIn(r) {
			return over, err
		}
	}
	verdict := f.verdict
	if f.named && r.RotationID != f.id { // it has replaced nothing
		verdict = failedEnd
	}
	over, ok, text := verdict(r)
	f.print(r, text)
	f.printWait(r)
	f.last = r
	if !over {
		return false, nil
	}
	if f.env.json() {
		err = printResponse(f.stdout, r)
	} else {
		err = f.report(r, ok, strings.TrimSpace(text))
	}
	if err == nil && !ok {
		err = coded{exitFailed, ""}
	}
	return true, err
}

func (f *follower) report(r *kms.DescribeRotationResponse, ok bool, text string) error {
	if !ok {
		fmt.Fprintf(f.stderr, "keyturn: %s\n", text)
	} else if _, err := fmt.Fprintln(f.stdout, text); err != nil {
		return err
	}
	if isRehearsal(r) {
		return printSteps(f.stdout, r.Steps)
	}
	return nil
}

// endedIn reports whether the rotation that is followed may have ended in r, which is of none: a
// quarantine because the target does not accept the credential in use.
func (f *follower) endedIn(r *kms.DescribeRotationResponse) bool {
	return r.Outcome == kms.OutcomeNeedsOperator && r.RotationID == ""
}

// elsewhere is for a record that is not of our rotation: that waits for the end of another one, was
// made before it, or ended in a quarantine.
func (f *follower) elsewhere(ctx context.Context, r *kms.DescribeRotationResponse) (over bool, err error) {
	list, err := f.client.ListSecretVersionIds(ctx, &kms.ListSecretVersionIdsRequest{
		SecretName:        f.secret,
		IncludeDeprecated: true,
		PageSize:          100,
	})
	if err != nil {
		return false, nil // asked again until the time is over
	}
	for _, v := range list.VersionIDs {
		switch labels := strings.Join(v.VersionStages, ", "); {
		case v.VersionID != f.id:
		case slices.Contains(v.VersionStages, kms.StageCurrent), slices.Contains(v.VersionStages, kms.StagePrevious):
			_, err := fmt.Fprintf(f.stdout, "Version %s of %s was made by an earlier rotation, at %s: %s.\n", f.id, f.secret,
				when(v.CreateTime), labels)
			return true, err
		case f.endedIn(r):
			return false, nil
		case f.last == nil:
			r, err := f.client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: f.secret})
			if err != nil || r.RotationID == f.id || r.EndedRotationID == f.id { // it has begun since
				return false, nil
			}
			return true, fmt.Errorf("version %s of %s was made by an earlier rotation, at %s, and is not in use", f.id, f.secret,
				when(v.CreateTime))
		}
	}
	if f.last != nil && !f.endedIn(r) {
		return true, errors.New(fault.Message("another rotation of %s has begun since; keyturn rotation status %s shows it",
			f.secret, f.secret))
	}
	return false, nil
}

// print prints the steps that are new, or with JSON the whole state when anything is. A text of a
// step that is part of the verdict is left to it.
func (f *follower) print(r *kms.DescribeRotationResponse, verdict string) {
	w := f.out
	if w == nil {
		w = f.stderr
	}
	fresh := len(r.Steps) > f.shown
	if f.env.json() {
		if f.out != nil && fresh && r.InProgress {
			_ = printResponse(w, r) // the last response is complete, too
		}
	} else if fresh && !isRehearsal(r) { // the report of a rehearsal has all steps
		for _, s := range r.Steps[f.shown:] {
			if strings.Contains(verdict, r.Reason) && strings.Contains(r.Reason, s.Text) {
				s.Text = ""
			}
			fmt.Fprintf(w, "%s  %s  %s\n", when(s.Time), s.State, happened(s))
		}
	}
	f.shown = max(f.shown, len(r.Steps))
}

// printWait prints once what a rotation waits for, until when, and why its last attempt failed.
func (f *follower) printWait(r *kms.DescribeRotationResponse) {
	if f.waits.state != r.State || !f.waits.until.Equal(r.NextAttemptTime) {
		f.waits = wait{state: r.State, until: r.NextAttemptTime, since: time.Now()}
	}
	if r.NextAttemptTime.IsZero() || r.WaitsFor == "" || f.waits.shown || time.Since(f.waits.since) < longWait {
		return
	}
	f.waits.shown = true
	w := f.out
	if w == nil || f.env.json() {
		w = f.stderr
	}
	text := "Waiting for " + r.WaitsFor + "."
	if r.Reason != "" {
		text += " The last attempt: " + r.Reason
	}
	fmt.Fprintln(w, text)
}

// silent is the error of a command whose server has not answered at all.
func silent(timeout time.Duration, err error) error {
	return fmt.Errorf("the server has not answered within %s: %w", timeout, err)
}

func (f *follower) late(timeout time.Duration, err error) error {
	switch {
	case f.ctx.Err() != nil:
		return errors.New("interrupted; the rotation continues automatically")
	case f.last == nil && err != nil:
		return silent(timeout, err)
	case f.last == nil:
		return errors.New(fault.Message("after %s it waits for the end of another rotation of %s; it continues "+
			"automatically, keyturn rotation status %s shows how", timeout, f.secret, f.secret))
	}
	text := fmt.Sprintf("after %s it waits for %s", timeout, f.last.WaitsFor)
	if f.last.Reason != "" {
		text += " (" + f.last.Reason + ")"
	}
	return errors.New(fault.Message("%s; it continues automatically, keyturn rotation status %s shows how",
		fault.Text(text), f.secret))
}
