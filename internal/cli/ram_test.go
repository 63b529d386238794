package cli

import (
	"errors"
	"slices"
	"testing"
)

func TestEveryPage(t *testing.T) {
	t.Parallel()
	pages := map[string]string{"": "m1", "m1": "m2", "m2": ""}
	var asked []string
	err := everyPage(func(marker string) (string, bool, error) {
		asked = append(asked, marker)
		next := pages[marker]
		return next, next != "", nil
	})
	if err != nil || !slices.Equal(asked, []string{"", "m1", "m2"}) {
		t.Errorf("asked for the pages at %q, %v; want each of three once", asked, err)
	}
	broken := errors.New("away")
	asked = nil
	err = everyPage(func(marker string) (string, bool, error) {
		asked = append(asked, marker)
		return "m1", true, broken
	})
	if !errors.Is(err, broken) || len(asked) != 1 {
		t.Errorf("after an error: asked %d times, %v", len(asked), err)
	}
}
