package cli

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeepMemory runs itself as a child, since the switch is for good, and reads back what the
// kernel says.
func TestKeepMemory(t *testing.T) {
	if os.Getenv("KEYTURN_TEST_KEEP_MEMORY") == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestKeepMemory$")
		child.Env = append(os.Environ(), "KEYTURN_TEST_KEEP_MEMORY=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := keepMemory(); err != nil {
		t.Fatal(err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("dumpable is %d, %v; want 0", dumpable, err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Max != 0 {
		t.Errorf("the limit on core files is %d, %v; want 0", limit.Max, err)
	}
}
