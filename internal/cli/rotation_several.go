package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/kms"
)

// several are the arguments of a command that is for one secret or for many.
type several struct {
	Names  []string `arg:"" optional:"" name:"name" help:"Names or ARNs of secrets."`
	Target given    `help:"All secrets at this target." placeholder:"NAME"`
	Tag    given    `help:"All secrets with this tag: KEY, or KEY=VALUE." placeholder:"TAG"`
	All    bool     `help:"All secrets."`
	DryRun bool     `help:"Show for which secrets it would be done, and do nothing."`
}

// given is a value that is not empty where its flag is: a variable of the shell that is not set
// must not select other secrets.
type given string

// UnmarshalText refuses an empty value.
func (g *given) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("it is empty")
	}
	*g = given(text)
	return nil
}

// one returns the name of the secret that the arguments name, if that is all that they do. It
// refuses arguments that name no secret, or name secrets in two ways.
func (s several) one() (name string, ok bool, err error) {
	ways := 0
	for _, given := range []bool{len(s.Names) > 0, s.Target != "" || s.Tag != "", s.All} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return "", false, coded{exitUsage, "give names of secrets, or --target or --tag or both, or --all"}
	}
	if len(s.Names) == 1 && !s.DryRun {
		return s.Names[0], true, nil
	}
	return "", false, nil
}

// planned is a secret for which a command is, and why it does nothing for it.
type planned struct {
	SecretName string `kms:"SecretName"`
	TargetName string `kms:"TargetName,omitempty"`
	State      string `kms:"State"`
	Skipped    string `kms:"Skipped,omitempty"`
}

// plan returns the secrets that the arguments select. Of those that are not named and skipped it
// returns only what is quarantined, and the number of the others. skip says why the command does
// nothing for a rotation.
func (s several) plan(
	e *env, client *kms.Client, skip func(kms.ListedRotation) string,
) (list []planned, others int, err error) {
	rotations, err := s.rotations(e, client)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range rotations {
		why := skip(r)
		if why != "" && len(s.Names) == 0 && r.State != kms.RotationQuarantined {
			others++
			continue
		}
		list = append(list, planned{r.SecretName, r.TargetName, r.State, why})
	}
	return list, others, nil
}

func (s several) rotations(e *env, client *kms.Client) ([]kms.ListedRotation, error) {
	if len(s.Names) > 0 {
		var list []kms.ListedRotation
		for _, name := range s.Names {
			r, err := client.DescribeRotation(e.ctx, &kms.SecretNameRequest{SecretName: name})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			same := func(o kms.ListedRotation) bool { return o.SecretName == r.SecretName }
			if !slices.ContainsFunc(list, same) {
				list = append(list, listed(r))
			}
		}
		return list, nil
	}
	all, err := listRotations(e.ctx, client, kms.ListRotationsRequest{TargetName: string(s.Target)})
	if err == nil && s.Target != "" && s.Target != rotation.OwnUsers && len(all.Rotations) == 0 {
		_, err = client.DescribeTarget(e.ctx, &kms.TargetNameRequest{TargetName: string(s.Target)})
		if errors.Is(err, kms.ErrNoPermission) {
			err = nil
		}
	}
	switch {
	case err != nil:
		return nil, err
	case s.Tag == "":
		return all.Rotations, nil
	}
	tagged, err := taggedSecrets(e, client, string(s.Tag))
	switch {
	case err != nil:
		return nil, err
	case len(tagged) == 0:
		return nil, coded{exitFailed, "no secret that you may list has the tag " + string(s.Tag)}
	}
	return slices.DeleteFunc(all.Rotations, func(r kms.ListedRotation) bool { return !tagged[r.SecretName] }), nil
}

// taggedSecrets returns the names of the secrets with a tag: KEY, or KEY=VALUE.
func taggedSecrets(e *env, client *kms.Client, tag string) (map[string]bool, error) {
	key, value, hasValue := strings.Cut(tag, "=")
	all, err := listSecrets(e.ctx, client, &kms.ListSecretsRequest{
		Filters:   []kms.Filter{{Key: "TagKey", Values: []string{key}}},
		FetchTags: true,
	})
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, s := range all.SecretList {
		isIt := func(t kms.Tag) bool { return t.TagKey == key && (!hasValue || t.TagValue == value) }
		if s.Tags != nil && slices.ContainsFunc(*s.Tags, isIt) {
			names[s.SecretName] = true
		}
	}
	return names, nil
}

// listed is the row of a rotation in a list.
func listed(r *kms.DescribeRotationResponse) kms.ListedRotation {
	return kms.ListedRotation{
		SecretName:        r.SecretName,
		State:             r.State,
		RotationID:        r.RotationID,
		Trigger:           r.Trigger,
		TargetName:        r.TargetName,
		InProgress:        r.InProgress,
		RepairActions:     r.RepairActions,
		Paused:            r.Paused,
		Pauses:            r.Pauses,
		StartTime:         r.StartTime,
		PromoteTime:       r.PromoteTime,
		NextAttemptTime:   r.NextAttemptTime,
		FailingSince:      r.FailingSince,
		NextRotationDate:  r.NextRotationDate,
		PlannedDeleteTime: r.PlannedDeleteTime,
		CredentialState:   r.CredentialState,
		ProbeTime:         r.ProbeTime,
		ProbeAttemptTime:  r.ProbeAttemptTime,
		ProbePending:      r.ProbePending,
		ProbeSkipped:      r.ProbeSkipped,
		ProbeSkippedCode:  r.ProbeSkippedCode,
		Reason:            r.Reason,
	}
}

// action is what a command does for each of several secrets.
type action struct {
	what string // is done with each secret, such as "rotated"
	skip func(kms.ListedRotation) string
	// question is asked before anything is done, with the number of secrets in words; empty asks
	// nothing.
	question string
	// do does it for one secret, and prints the result in a sentence.
	do func(e *env, name string) error
}

// severalResult is what a command for several secrets prints for programs.
type severalResult struct {
	Planned []planned     `kms:"Planned,list=Secret,omitempty"`
	Results []resultOfOne `kms:"Results,list=Result,omitempty"`
	Others  int           `kms:"Others"`
}

// resultOfOne is what became of the command for one secret.
type resultOfOne struct {
	SecretName string `kms:"SecretName"`
	Done       bool   `kms:"Done"`
	Text       string `kms:"Text"`
}

// severalAtOnce is for how many secrets a command acts at the same time.
const severalAtOnce = 4

// run shows the plan, asks, and acts for each secret. It fails if that fails for one, or if a named
// secret is skipped.
func (s several) run(e *env, a action, yes bool) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	list, others, err := s.plan(e, client, a.skip)
	if err != nil {
		return err
	}
	var todo []string
	for _, p := range list {
		if p.Skipped == "" {
			todo = append(todo, p.SecretName)
		}
	}
	asks := a.question != "" && !yes && len(todo) > 0
	shows := s.DryRun || asks || !e.json() && len(todo) == 0
	switch {
	case shows && asks && !s.DryRun && e.json():
		err = writePlan(e.stderr, a, list, others)
	case shows:
		err = e.showPlan(a, list, others)
	}
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Skipped != "" && !shows && !e.json() {
			fmt.Fprintf(e.stderr, "keyturn: %s: nothing was done: %s\n", p.SecretName, p.Skipped)
		}
	}
	failed := len(s.Names) > 0 && len(todo) < len(list)
	if !s.DryRun {
		if asks {
			if err := e.confirm(fmt.Sprintf(a.question, secretsInWords(len(todo)))); err != nil {
				return err
			}
		}
		results := e.each(client, todo, a)
		if e.json() {
			err = printResponse(e.stdout, &severalResult{Planned: list, Results: results, Others: others})
		}
		failed = failed || slices.ContainsFunc(results, func(r resultOfOne) bool { return !r.Done })
	}
	if err == nil && failed {
		err = coded{exitFailed, ""}
	}
	return err
}

// secretsInWords is a number of secrets in words: "this secret", or "these 2 secrets".
func secretsInWords(n int) string {
	if n == 1 {
		return "this secret"
	}
	return fmt.Sprintf("these %d secrets", n)
}

// showPlan prints for which secrets the command would act.
func (e *env) showPlan(a action, list []planned, others int) error {
	if e.json() {
		return printResponse(e.stdout, &severalResult{Planned: list, Others: others})
	}
	return writePlan(e.stdout, a, list, others)
}

func writePlan(w io.Writer, a action, list []planned, others int) error {
	t, todo := newTable("SECRET", "TARGET", "STATE", "PLAN"), 0
	for _, p := range list {
		t.row(p.SecretName, p.TargetName, p.State, cmp.Or(p.Skipped, "to be "+a.what))
		if p.Skipped == "" {
			todo++
		}
	}
	var err error
	if len(list) > 0 {
		err = t.write(w)
	}
	text := fmt.Sprintf("%d to be %s", todo, a.what)
	if n := len(list) - todo; n > 0 {
		text += fmt.Sprintf(", %d skipped", n)
	}
	switch {
	case others == 1:
		text += "; 1 other secret is left out: nothing to do, or not possible now"
	case others > 1:
		text += fmt.Sprintf("; %d other secrets are left out: nothing to do, or not possible now", others)
	}
	_, printed := fmt.Fprintln(w, text+".")
	return errors.Join(err, printed)
}

// each acts for each secret, and prints the results as they come.
func (e *env) each(client *kms.Client, names []string, a action) []resultOfOne {
	results := make([]resultOfOne, len(names))
	next := make(chan int)
	var all sync.WaitGroup
	var printing sync.Mutex
	for range min(severalAtOnce, len(names)) {
		all.Go(func() {
			for i := range next {
				text, err := e.doFor(client, names[i], a)
				results[i] = resultOfOne{SecretName: names[i], Done: err == nil, Text: text}
				if !e.json() {
					printing.Lock()
					e.printOne(names[i], text, err)
					printing.Unlock()
				}
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	all.Wait()
	return results
}

func (e *env) printOne(name, text string, err error) {
	switch exit := (command.Exit{}); {
	case err == nil:
		fmt.Fprintln(e.stdout, text)
	case errors.As(err, &exit) && exit.Text == "": // the reason was printed
		fmt.Fprintf(e.stderr, "keyturn: %s: %s\n", name, text)
	default:
		command.Report(e.stderr, "keyturn: "+name, err)
	}
}

// doFor acts for one secret and returns what that prints, or why it failed.
func (e *env) doFor(client *kms.Client, name string, a action) (text string, err error) {
	var out, failures bytes.Buffer
	own := *e
	own.stdout, own.stderr, own.Output, own.client = &out, &failures, "", client
	if err = a.do(&own, name); err == nil {
		return strings.TrimSpace(out.String()), nil
	}
	if service := (*kms.Error)(nil); errors.As(err, &service) {
		return service.Message, err
	}
	lines := strings.Split(strings.TrimSpace(failures.String()), "\n") // the steps, and then the reason
	return cmp.Or(err.Error(), strings.TrimPrefix(lines[len(lines)-1], "keyturn: ")), err
}

// nothingToRepair says why a repair does nothing for a rotation.
func nothingToRepair(action string) func(kms.ListedRotation) string {
	return func(r kms.ListedRotation) string {
		switch {
		case slices.Contains(r.RepairActions, action):
			return ""
		case r.State == kms.RotationQuarantined:
			return "--" + action + " is not possible: " + fault.Command("rotation repair", r.SecretName) + " explains why"
		}
		return "nothing is quarantined"
	}
}

// cannotRotate says what keeps a secret from being rotated; empty if nothing does.
func cannotRotate(r kms.ListedRotation) string {
	switch {
	case r.TargetName == "":
		return "it is not rotated"
	case !r.PlannedDeleteTime.IsZero():
		return "it is to be deleted"
	case r.State == kms.RotationQuarantined:
		return "it is quarantined"
	case r.InProgress:
		return "its rotation has not ended"
	case r.Paused:
		return "it is paused"
	}
	return ""
}

// waitsForNothing says why a rotation has no step to try again; empty if it has one.
func waitsForNothing(r kms.ListedRotation) string {
	switch {
	case r.State == kms.RotationQuarantined:
		return "it is quarantined: " + fault.Command("rotation repair", r.SecretName) + " explains what can be done"
	case !slices.Contains(r.RepairActions, kms.RepairProbe):
		return "no step of it has failed and waits for another try"
	}
	return ""
}
