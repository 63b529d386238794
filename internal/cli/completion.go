package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/internal/protocol"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// scripts ask the program itself what may follow, so that they never go stale.
var scripts = map[string]string{
	"bash": `# keyturn completion bash > /etc/bash_completion.d/keyturn
_keyturn() {
  local IFS=$'\n'
  COMPREPLY=($(keyturn __complete "${COMP_WORDS[@]:1:COMP_CWORD}"))
}
complete -o default -F _keyturn keyturn
`,
	"zsh": `#compdef keyturn
# keyturn completion zsh > "${fpath[1]}/_keyturn"
_keyturn() {
  local -a list
  list=("${(@f)$(keyturn __complete "${(@)words[2,CURRENT]}")}")
  compadd -a list || _files
}
compdef _keyturn keyturn
`,
	"fish": `# keyturn completion fish > ~/.config/fish/completions/keyturn.fish
complete -c keyturn -a '(keyturn __complete (commandline -opc)[2..-1] (commandline -ct))'
`,
}

func (c *completionCommand) Run(e *env) error {
	_, err := fmt.Fprint(e.stdout, scripts[c.Shell])
	return err
}

// completeCommand answers the scripts: one candidate a line for the last word.
type completeCommand struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

func (c *completeCommand) Run(e *env) error {
	if len(c.Words) == 0 {
		return nil
	}
	before, last := c.Words[:len(c.Words)-1], c.Words[len(c.Words)-1]
	for _, candidate := range candidates(e.model.Node, before) {
		if strings.HasPrefix(candidate, last) {
			fmt.Fprintln(e.stdout, candidate)
		}
	}
	return nil
}

func candidates(node *kong.Node, words []string) []string {
	if len(words) > 0 && words[0] == "kms" {
		return kmsCandidates(words[1:])
	}
	flags := []*kong.Flag{}
	for _, w := range words {
		for _, child := range node.Children {
			if child.Name == w && !child.Hidden {
				flags = append(flags, node.Flags...)
				node = child
			}
		}
	}
	var list []string
	for _, child := range node.Children {
		if !child.Hidden {
			list = append(list, child.Name)
		}
	}
	for _, f := range append(flags, node.Flags...) {
		if !f.Hidden {
			list = append(list, "--"+f.Name)
		}
	}
	return list
}

func kmsCandidates(words []string) []string {
	var list []string
	for _, op := range protocol.Operations() {
		if len(words) == 0 {
			list = append(list, op.Name)
			continue
		}
		if op.Name == words[0] {
			for _, p := range op.Params() {
				list = append(list, "--"+p.Name)
			}
		}
	}
	return list
}
