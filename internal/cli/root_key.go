package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/kms"
)

// statusEvery is how often a command that waits asks how far the rotation is.
const statusEvery = 500 * time.Millisecond

type rootKeyCommand struct {
	globals
	Status  rootKeyStatus  `cmd:"" help:"Show which root key is in use, and whether a rotation is under way."`
	Rotate  rootKeyRotate  `cmd:"" help:"Replace the root key, the record key and the master key versions."`
	Prepare rootKeyPrepare `cmd:"" help:"Add a new root key to a key file, for the nodes of a cluster."`
}

type rootKeyStatus struct{}

func (c *rootKeyStatus) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.DescribeRootKey(e.ctx, &kms.DescribeRootKeyRequest{})
	if err != nil {
		return err
	}
	return e.print(out)
}

func (e *env) print(out *kms.RootKeyResponse) error {
	if e.json() {
		return printResponse(e.stdout, out)
	}
	t := newTable()
	t.facts([][2]string{
		{"root key", out.RootKeyID}, {"state", out.RotationState}, {"started", when(out.StartedAt)},
		{"previous root key", out.FormerRootKeyID},
		{"next root key", out.NextRootKeyID},
		{"record key", fmt.Sprint("generation ", out.RecordKeyGeneration)},
	}...)
	return t.write(e.stdout)
}

type rootKeyRotate struct {
	ReencryptValues bool          `help:"Also encrypt every stored value again, under a new data key."`
	Force           bool          `help:"Rotate again within an hour; allowed to the root account only."`
	Wait            bool          `help:"Wait until the previous root key is no longer needed."`
	Timeout         time.Duration `help:"Longest time to wait." default:"10m"`
}

func (c *rootKeyRotate) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.RotateRootKey(e.ctx, &kms.RotateRootKeyRequest{
		ReencryptValues: c.ReencryptValues,
		Force:           c.Force,
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stderr, "Backups made until now need the previous root key: keep its copy with them.\nCopy the new "+
		"root key (DATA_DIR/root.key, or what root-key-file or root-key-env names) to another place now.")
	end := time.NewTimer(c.Timeout)
	defer end.Stop()
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for c.Wait && out.RotationState != kms.RootKeyIdle {
		select {
		case <-tick.C:
		case <-end.C:
			return errors.New("the rotation has not ended yet; it goes on: keyturn root-key status")
		case <-e.ctx.Done():
			return e.ctx.Err()
		}
		if out, err = client.DescribeRootKey(e.ctx, &kms.DescribeRootKeyRequest{}); err != nil {
			return err
		}
	}
	return e.print(out)
}

type rootKeyPrepare struct {
	File string `arg:"" help:"The root key file." type:"existingfile"`
}

// Run works on the file alone: the nodes of a cluster read it again when they need a key that they
// do not have.
func (c *rootKeyPrepare) Run(e *env) error {
	f := root.File{Path: c.File}
	ring, err := f.Load(false)
	if err != nil {
		return err
	}
	keys := ring.Keys()
	if len(keys) > 1 {
		return fmt.Errorf("%s holds %d root keys already: copy it to every node, then run keyturn root-key rotate", c.File,
			len(keys))
	}
	next, err := root.Generate(f.Name())
	if err != nil {
		return err
	}
	if err := f.Keep(append(keys, next)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s has the new root key %s beside %s. Copy the file to every node, then run keyturn "+
		"root-key rotate.\n", c.File, next.ID(), keys[0].ID())
	return err
}
