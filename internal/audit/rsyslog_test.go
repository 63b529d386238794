package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRsyslog forwards to a real rsyslog and finds every record in its file, also one that is
// longer than rsyslog's default.
func TestRsyslog(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("rsyslogd")
	if err != nil {
		if program = "/usr/sbin/rsyslogd"; !exists(program) {
			t.Skip("rsyslogd is not installed")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, out := filepath.Join(dir, "conf"), filepath.Join(dir, "out")
	text := fmt.Sprintf(`global(maxMessageSize="256k" workDirectory="%s")
module(load="imtcp")
template(name="line" type="string" string="%%app-name%% %%msgid%% %%syslogfacility-text%% %%timereported:::date-rfc3339%% %%msg%%\n")
input(type="imtcp" address="127.0.0.1" port="%s")
action(type="omfile" file="%s" template="line")
`, dir, port, out)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, program, "-n", "-f", config, "-i", filepath.Join(dir, "pid"))
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = server.Wait() })
	cfg := testConfig(t)
	log, stop := resumed(t, cfg, testAnchor(nil))
	f := log.Forward(&Syslog{Address: address}, 0)
	running, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(running) }()
	mustAppend(t, log, true, "1", "2")
	long := call("3")
	long.Details = Details{{"document", strings.Repeat("<é", 4000)}}
	if err := log.Append(t.Context(), long, true); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for deadline := time.Now().Add(time.Minute); len(lines) < 3; {
		data, _ := os.ReadFile(out)                       // it is not there yet
		whole := data[:bytes.LastIndexByte(data, '\n')+1] // rsyslog may still be writing the last line
		lines = strings.Split(strings.TrimSpace(string(whole)), "\n")
		if time.Now().After(deadline) {
			t.Fatalf("rsyslog has %q; it says %s", lines, said.String())
		}
	}
	end()
	<-done
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	want := readRecords(t, cfg.Dir)
	for i, line := range lines {
		head, body, _ := strings.Cut(line, " {")
		var r Record
		if err := json.Unmarshal([]byte("{"+body), &r); err != nil || r.Hash != want[i].Hash {
			t.Errorf("message %d: %v, %.200s", i, err, line)
		}
		if head != "keyturn audit audit 2026-01-02T02:04:05.600Z" {
			t.Errorf("head %q", head)
		}
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
