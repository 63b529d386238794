package cli

import (
	"errors"
	"io"
	"testing"

	"github.com/keyturn/keyturn/kms"
)

// TestInFlags verifies that an error of the API names the flag that the operator has typed, and
// keeps values and ordinary words.
func TestInFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args    []string
		message string
		want    string
	}{
		{
			[]string{"rotation", "configure", "app", "--cron", "@daily", "--interval", "7d"},
			`The specified parameter "Cron" is not valid. Give RotationInterval or Cron, not both.`,
			`The specified parameter --cron is not valid. Give --interval or --cron, not both.`,
		},
		{
			[]string{"rotation", "configure", "app", "--login-endpoint", "db:1"},
			`The specified parameter "LoginEndpoint.N" is not valid. Target "LoginRole" does not log in at "db:1".`,
			`The specified parameter --login-endpoint is not valid. Target "LoginRole" does not log in at "db:1".`,
		},
		{
			[]string{"rotation", "configure", "app", "--grace", "1s"},
			`Group and GroupGap go together. Account "x" has a GracePeriod.`,
			`Group and --group-gap go together. Account "x" has a --grace.`,
		},
		{
			[]string{"target", "add", "pg", "--kind", "postgresql", "--address", "db"},
			`The parameter "AdminSecretName" is needed but not provided.`,
			`The parameter --admin-secret is needed but not provided.`,
		},
		{
			[]string{"kms", "ConfigureRotation"},
			`The specified parameter "Cron" is not valid. Give RotationInterval or Cron, not both.`,
			`The specified parameter "Cron" is not valid. Give RotationInterval or Cron, not both.`,
		},
	} {
		parser, err := newParser(&env{stdout: io.Discard, stderr: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parser.Parse(c.args)
		if err != nil {
			t.Fatal(err)
		}
		var got *kms.Error
		if !errors.As(inFlags(&kms.Error{Message: c.message, Code: "X"}, parsed.Selected()), &got) || got.Code != "X" {
			t.Fatalf("%v: %+v", c.args, got)
		}
		if got.Message != c.want {
			t.Errorf("%v:\n got %s\nwant %s", c.args, got.Message, c.want)
		}
	}
}
