package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Escape sequences for terminals that have colours.
const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	reset = "\x1b[0m"
)

// indent is what stands before the text of a step: "  2.3  ".
const indent = "       "

// narrator tells people what happens. Its first failure to write is kept, and everything after it
// is silent.
type narrator struct {
	out     io.Writer
	color   bool
	err     error
	step    string            // the step under way, for errors: "2.3, register v2"
	reached func(step string) // sees each step as it begins
}

func (n *narrator) printf(format string, args ...any) {
	if n.err == nil {
		_, n.err = fmt.Fprintf(n.out, format, args...)
	}
}

func (n *narrator) paint(color, text string) string {
	if !n.color {
		return text
	}
	return color + text + reset
}

// section begins a part of the demo.
func (n *narrator) section(title, text string) {
	n.printf("\n%s  %s\n", n.paint(bold, title), text)
}

// note adds a line that one may skip.
func (n *narrator) note(text string) { n.printf("  %s\n", n.paint(dim, text)) }

// begin begins a step. The lines say what is done, in the words one would type.
func (n *narrator) begin(number, name string, lines ...string) {
	n.step = number + ", " + name
	n.printf("  %s  %s\n", n.paint(bold, number), lines[0])
	for _, line := range lines[1:] {
		n.printf("%s    %s\n", indent, line)
	}
	if n.reached != nil {
		n.reached(number)
	}
}

// ok says what a step was found to have done.
func (n *narrator) ok(format string, args ...any) {
	n.printf("%s%s  %s\n", indent, n.paint(green, "ok"), fmt.Sprintf(format, args...))
}

// failed says what a step should have done and what it did, and returns the same as an error.
func (n *narrator) failed(what, want, got string) error {
	n.printf(
		"%s%s  %s\n%s  expected  %s\n%s  found     %s\n", indent, n.paint(red, "FAILED"), what, indent, want,
		indent, got,
	)
	return fmt.Errorf("step %s: %s: expected %s, found %s", n.step, what, want, got)
}

// expect compares what was found with what should be. What was cut off by an interruption is not
// compared.
func (n *narrator) expect(ctx context.Context, what, want, got string) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case want != got:
		return n.failed(what, want, got)
	}
	return nil
}

// succeeded is nil when err is.
func (n *narrator) succeeded(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	return n.expect(ctx, what, "success", err.Error())
}

// table prints rows with the first column to the left and the others to the right of their width.
func (n *narrator) table(rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if i == 0 {
				fmt.Fprintf(&b, "  %-*s", width[i], cell)
			} else {
				fmt.Fprintf(&b, "  %*s", width[i], cell)
			}
		}
		n.printf("%s\n", b.String())
	}
}
