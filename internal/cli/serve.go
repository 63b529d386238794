package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/server"
)

// serveCommand runs the server. Its flags are the settings of the server.
type serveCommand struct{ settingFlags }

func (c *serveCommand) Run(e *env) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP) // before anything else: the start may take minutes
	defer signal.Stop(reload)
	set, err := loadSettings(e, c.given())
	if err != nil {
		return err
	}
	if !set.AllowCoreDumps {
		if err := keepMemory(); err != nil {
			set.Logger.Warn("core dumps could not be disabled", "err", err)
		}
	}
	return serve(e, set.Config, reload)
}

// serve runs the server until ctx ends. It prints on standard output how to go on after a first
// run. A reload during the start follows it.
func serve(e *env, config server.Config, reload <-chan os.Signal) error {
	config.Version = command.Version
	node, err := server.New(e.ctx, config)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	select {
	case <-node.Ready():
	case err := <-done:
		return err
	}
	announce(e, node, config)
	err = waitReloading(node, done, reload)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	config.Logger.Info("stopped")
	return err
}

// waitReloading waits for the end of the server, which reads its certificate again at each signal.
func waitReloading(node *server.Server, done <-chan error, reload <-chan os.Signal) error {
	for {
		select {
		case <-reload:
			node.Reload()
		case err := <-done:
			return err
		}
	}
}

func announce(e *env, node *server.Server, config server.Config) {
	if endpoint := node.Endpoint(); endpoint != "" {
		fmt.Fprintf(e.stdout, "Keyturn %s serves https://%s", command.Version, endpoint)
	} else {
		fmt.Fprintf(e.stdout, "Keyturn %s serves http://%s", command.Version, node.HTTPEndpoint())
	}
	if node.Endpoint() != "" && node.HTTPEndpoint() != "" {
		fmt.Fprintf(e.stdout, " and http://%s", node.HTTPEndpoint())
	}
	fmt.Fprintln(e.stdout, "")
	admin, first := node.Admin()
	if !first {
		return
	}
	path := filepath.Join(config.DataDir, "admin.json")
	secret := "(in that file; shown only on a terminal)"
	if isTerminal(e.raw) {
		secret = admin.AccessKeySecret.Reveal() // anything else that standard output leads to, a journal say, keeps it
	}
	trust := ""
	if config.TLSCertFile != "" { // admin.json names no certificate to trust then
		trust = " --ca-file YOUR-CA.pem  # unless this machine trusts that CA"
	}
	fmt.Fprintf(e.stdout, `
First run: created account %s and its administrator. The administrator's access key is in
%s (mode 0600); the server does not need the file.

  access key id      %s
  access key secret  %s

Next:
  keyturn profile import %s%s
  echo -n 's3cret' | keyturn secret put app/token
  keyturn secret get app/token

`, admin.AccountID, path, admin.AccessKeyID, secret, path, trust)
	if key := config.RootKey; key == nil {
		fmt.Fprintf(e.stdout, "Keep a copy of the root key %s in another place: without it the store cannot be read.\n",
			filepath.Join(config.DataDir, "root.key"))
	} else {
		fmt.Fprintf(e.stdout, "Keep a copy of the root key (%s) in another place: without it the store cannot be read.\n",
			key.Name())
	}
}
