package cli

import (
	"slices"
	"strings"

	"github.com/keyturn/keyturn/kms"
)

// withoutFindings returns a text about a rotation without the findings that it repeats: their codes
// refer to the list of findings below it.
func withoutFindings(text string, list []kms.RotationFinding) string {
	first := len(text)
	var codes []string
	for _, f := range list {
		at := strings.Index(text, f.Text)
		if f.Text == "" || at < 0 {
			continue
		}
		if first = min(first, at); !slices.Contains(codes, f.Code) {
			codes = append(codes, f.Code)
		}
	}
	if len(codes) == 0 {
		return text
	}
	return text[:first] + "Findings, see below: " + strings.Join(codes, ", ") + "."
}

// stepsWithoutFindings returns steps whose texts repeat no finding, see [withoutFindings].
func stepsWithoutFindings(steps []kms.RotationStep, list []kms.RotationFinding) []kms.RotationStep {
	steps = slices.Clone(steps)
	for i := range steps {
		steps[i].Text = withoutFindings(steps[i].Text, list)
	}
	return steps
}
