package main

import "testing"

// TestMutationsFitTheSource verifies that the text which each row changes is in its file, so that a
// change of the product does not leave a rule without its mutation.
func TestMutationsFitTheSource(t *testing.T) {
	t.Parallel()
	if _, err := expand("../..", mutations); err != nil {
		t.Error(err)
	}
}
