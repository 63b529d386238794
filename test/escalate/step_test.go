package escalate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// step is one thing that happens. Its text, one line, is what a failing sequence is printed as and
// what the table of known sequences holds:
//
//	allow mallory kms:*Target on target target/*    root attaches a policy with that statement
//	mallory RotateSecret SecretName=a VersionId=v1  a call; with mallory/boss, by a key of boss that mallory has
//	mallory x250 WatchSecrets Leaving=true          the same call many times
//	engine                                          the engine does what is due now
//	wait 1h                                         time passes, and the engine does what is due then
//	remove alice                                    root deletes a user with all that hinders it
//	acknowledge                                     the application says which version it uses
//
// A space in a value is written %20.
type step struct {
	verb   string // call, or the word that the line begins with
	who    string
	as     string // the user whose key signs; empty means who
	op     string
	params []param
	times  int
	wait   time.Duration
	line   string // what allow and deny are made from
}

type param struct{ name, value string }

func (s step) get(name string) string {
	for _, p := range s.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

func (s step) has(name string) bool { return s.get(name) != "" }

func (s step) String() string {
	switch s.verb {
	case "wait":
		return "wait " + s.wait.String()
	case "call":
	case "remove":
		return "remove " + s.who
	case "allow", "deny":
		return s.verb + " " + s.who + " " + s.line
	default:
		return s.verb
	}
	b := &strings.Builder{}
	b.WriteString(s.who)
	if s.as != "" && s.as != s.who {
		b.WriteString("/" + s.as)
	}
	if s.times > 1 {
		fmt.Fprintf(b, " x%d", s.times)
	}
	b.WriteString(" " + s.op)
	for _, p := range s.params {
		b.WriteString(" " + p.name + "=" + strings.ReplaceAll(p.value, " ", "%20"))
	}
	return b.String()
}

// stepLines returns the lines of a script. A line that begins with "..." continues its predecessor.
func stepLines(text string) []string {
	var out []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimSpace(line)
		if rest, more := strings.CutPrefix(line, "... "); more {
			out[len(out)-1] += " " + rest
		} else {
			out = append(out, line)
		}
	}
	return out
}

// parseSteps reads lines; empty ones separate.
func parseSteps(text string) ([]step, error) {
	var out []step
	for _, line := range stepLines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		s, err := parseStep(words)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func parseStep(words []string) (step, error) {
	switch words[0] {
	case "engine", "acknowledge":
		return step{verb: words[0]}, nil
	case "wait":
		d, err := time.ParseDuration(words[1])
		return step{verb: "wait", wait: d}, err
	case "remove":
		return step{verb: "remove", who: words[1]}, nil
	case "allow", "deny":
		return step{verb: words[0], who: words[1], line: strings.Join(words[2:], " ")}, nil
	}
	s := step{verb: "call", times: 1}
	s.who, s.as, _ = strings.Cut(words[0], "/")
	words = words[1:]
	if n, ok := strings.CutPrefix(words[0], "x"); ok {
		var err error
		if s.times, err = strconv.Atoi(n); err != nil {
			return s, err
		}
		words = words[1:]
	}
	s.op = words[0]
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		s.params = append(s.params, param{name, strings.ReplaceAll(value, "%20", " ")})
	}
	return s, nil
}
