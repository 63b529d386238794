package servers

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/test/support"
)

// asParent makes the test binary start a server, print its process ID and wait to be killed.
const asParent = "KEYTURN_TEST_KEPT_PARENT"

// TestKilledTestLeavesNoServer verifies that a server ends when the test binary is killed, which
// runs no clean-up.
func TestKilledTestLeavesNoServer(t *testing.T) {
	if os.Getenv(asParent) != "" {
		k := startKept(t, exec.Command("sleep", "600"), nil)
		_, _ = os.Stdout.WriteString("server " + strconv.Itoa(k.cmd.Process.Pid) + "\n")
		<-k.exited
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestKilledTestLeavesNoServer$")
	parent.Env = append(os.Environ(), asParent+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = parent.Process.Kill()
	_ = parent.Wait() // it was killed
	server, _ := strings.CutPrefix(strings.TrimSpace(line), "server ")
	pid, atoi := strconv.Atoi(server)
	if err := errors.Join(err, atoi); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // fails when it has ended, as it must
	support.Until(t, "the end of the server of a killed test", func() bool {
		stat, err := os.ReadFile("/proc/" + server + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
