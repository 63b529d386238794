package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
)

type auditCommand struct {
	Verify auditVerify `cmd:"" help:"Verify the chain of an audit trail, and compare it with the server's record of it."`
}

type auditVerify struct {
	Path        string   `arg:"" help:"Directory of the trail (DATA_DIR/audit), or one file of it." type:"path"`
	DataDir     string   `help:"Data directory of the stopped server, to compare with." placeholder:"DIR" type:"path"`
	RootKeyFile string   `help:"File with the root key (DATA_DIR/root.key)." placeholder:"FILE" type:"path"`
	RootKeyEnv  string   `help:"Variable of the environment with the root key, for --data-dir." placeholder:"NAME"`
	Online      bool     `help:"Compare with the running server of the profile, which keeps this trail."`
	Profile     string   `help:"Profile for --online (${profile_variable}, or the current one)." placeholder:"NAME"`
	KnownGap    []uint64 `help:"Record number of a known loss; may be repeated." placeholder:"N"`
}

func (c *auditVerify) Run(e *env) error {
	v, err := c.against(e)
	if err != nil {
		return err
	}
	v.KnownGaps = c.KnownGap
	r, err := v.Verify(c.Path)
	if err != nil {
		return err
	}
	if v.Head == nil && r.FirstSeq > 1 {
		fmt.Fprintf(e.stdout, "Note: the trail begins with record %d; earlier ones are kept elsewhere or missing.\n",
			r.FirstSeq)
	}
	if r.Newer > 0 {
		fmt.Fprintf(e.stdout,
			"Note: %d records were written by a newer release; their chain was verified, their content was not read.\n", r.Newer)
	}
	for _, g := range r.Gaps {
		fmt.Fprintf(e.stdout, "Note: record %d reports a loss, %s: %s\n", g.Seq, g.Loss, g.Note)
	}
	fmt.Fprintf(e.stdout, "The chain holds: records %d to %d (%d) in %d file(s), last hash %s\n", r.FirstSeq, r.LastSeq,
		r.Records, r.Segments, r.LastHash)
	_, err = fmt.Fprintln(e.stdout, c.extent(v, r))
	return err
}

// extent says what was verified besides the chain, and what was not.
func (c *auditVerify) extent(v audit.Verification, r audit.Report) string {
	switch {
	case v.Key != nil:
		text := fmt.Sprintf("The MACs of %d record(s) are right, and the trail reaches the last record that the store "+
			"knows of, %d.", r.Keyed, v.Head.Seq)
		if r.Keyed < r.Records {
			text += fmt.Sprintf("\n%d record(s) have no MAC under this key, such as records of a release before MACs; "+
				"the chain covers them.", r.Records-r.Keyed)
		}
		return text
	case v.Head != nil:
		text := fmt.Sprintf("The server confirms the records up to %d.", v.Head.Seq)
		if newer := r.LastSeq - min(v.Head.Seq, r.LastSeq); newer > 0 {
			text += fmt.Sprintf(" %d newer record(s) are not confirmed yet: records of the last second, including this request.",
				newer)
		}
		return text
	}
	return "Not verified: MACs, and whether records were cut off or all were rewritten. --online or --data-dir verifies " +
		"that."
}

// against finds what the trail is held to.
func (c *auditVerify) against(e *env) (audit.Verification, error) {
	switch {
	case c.Online && c.DataDir != "":
		return audit.Verification{}, coded{exitUsage, "--online and --data-dir exclude each other"}
	case c.DataDir == "" && (c.RootKeyFile != "" || c.RootKeyEnv != ""):
		return audit.Verification{}, coded{exitUsage, "--root-key-file and --root-key-env are for --data-dir"}
	case c.RootKeyFile != "" && c.RootKeyEnv != "":
		return audit.Verification{}, coded{exitUsage, "--root-key-file and --root-key-env exclude each other"}
	case c.Online:
		return c.online(e)
	case c.DataDir != "":
		return c.offline(e)
	}
	return audit.Verification{}, nil
}

func (c *auditVerify) online(e *env) (audit.Verification, error) {
	client, err := connect(c.Profile)
	if err != nil {
		return audit.Verification{}, err
	}
	out, err := client.DescribeAuditTrail(e.ctx, &kms.DescribeAuditTrailRequest{})
	if err != nil {
		return audit.Verification{}, err
	}
	if out.Sequence < 0 || out.FirstSequence < 0 || out.KeyedFrom < 0 {
		return audit.Verification{}, errors.New("the server's answer has a negative number")
	}
	head := audit.Head{
		Node:      out.Node,
		Seq:       uint64(out.Sequence),
		Hash:      out.Hash,
		First:     uint64(out.FirstSequence),
		KeyedFrom: uint64(out.KeyedFrom),
	}
	return audit.Verification{Head: &head, InUse: true}, nil
}

func (c *auditVerify) offline(e *env) (audit.Verification, error) {
	var key root.Provider = root.File{Path: filepath.Join(c.DataDir, "root.key")}
	switch {
	case c.RootKeyFile != "":
		key = root.File{Path: c.RootKeyFile}
	case c.RootKeyEnv != "":
		key = root.Env{Variable: c.RootKeyEnv}
	}
	return server.StoredTrail(e.ctx, c.DataDir, key)
}
