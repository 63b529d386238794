package ssh

import (
	"strings"
)

// What a script prints. A host that prints no start has not run it.
const (
	started = "keyturn:start"
	done    = "keyturn:done"
	failed  = "keyturn:failed "
)

// shell is the one command that is sent to a host. An account's login shell reads it, and every
// shell reads plain words alike: bash, dash, tcsh, fish, and restricted ones that have sh in their
// path. All else is the input of this shell.
const shell = "sh -s"

// inner ends the script of the account that the first shell becomes.
const inner = "keyturn:input"

// as names the account that a script runs as, by a shell text that sets the words of a command.
type as string

const (
	// asLogin is the account that has logged in.
	asLogin as = ""
	// asRoot is root.
	asRoot as = `
if [ "$(id -u)" -eq 0 ]; then set -- sh -s; else set -- sudo -n -- sh -s; fi
`
)

// asAccount is the account itself, unless it is the one that has logged in.
func asAccount(account string) as {
	return as(strings.ReplaceAll(`
if [ "$(id -un)" = "NAME" ]; then set -- sh -s
elif [ "$(id -u)" -ne 0 ]; then set -- sudo -n -u "NAME" -- sh -s
elif command -v runuser >/dev/null 2>&1; then set -- runuser -u "NAME" -- sh -s
else set -- su -s /bin/sh "NAME" -c "exec sh -s"
fi
`, "NAME", account))
}

// asKeeper is the account that changes a list of keys. Below a home directory that is the account
// itself: root following links in a directory of another account could be led anywhere.
func (h *host) asKeeper(path, account string) as {
	switch {
	case h.Self:
		return asLogin
	case strings.HasPrefix(path, "/"):
		return asRoot
	}
	return asAccount(account)
}

// become returns the input of a first shell that becomes another account and hands it a script.
// Nothing is done by half of it.
func (a as) become(script string) string {
	if a == asLogin {
		return script
	}
	return "main() {\nPATH=$PATH:/usr/sbin:/sbin:/usr/bin:/bin\n" + strings.TrimPrefix(string(a), "\n") +
		"exec \"$@\" <<'" + inner + "'\n" + script + inner + "\n}\nmain; exit\n"
}

// script puts commands into a function that the last line calls, so that nothing is done by half of
// a script. The same line ends the shell: it would wait for the end of its input otherwise, with
// its lock on a directory, and that end is lost with the connection when the network goes silent.
func script(body string, parameters ...string) string {
	var b strings.Builder
	b.WriteString(
		"main() {\necho " + started + "\n" +
			"LC_ALL=C; export LC_ALL\n" +
			"PATH=$PATH:/usr/sbin:/sbin:/usr/bin:/bin\n" +
			"umask 077\n" +
			"cd / || fail 'cd /'\n",
	)
	for i := 0; i+1 < len(parameters); i += 2 {
		b.WriteString(parameters[i] + "=" + shellQuote(parameters[i+1]) + "\n")
	}
	b.WriteString(body)
	b.WriteString("echo\necho " + done + "\n}\nfail() { echo; echo \"" + failed + "$*\"; exit 1; }\nmain; exit\n")
	return b.String()
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// keysBytes is how many bytes a list of keys may have.
const keysBytes = "2097152"

// locate sets file, and defines how it is read. The account may have made it: sshd ignores what is
// not a regular file, a large one is refused, and one that becomes a pipe meanwhile does not keep
// a process waiting.
const locate = `
limit=` + keysBytes + `
bounded() {
  if timeout 1 true 2>/dev/null; then timeout 20 "$@"; else "$@"; fi
}
readable() {
  [ -r "$file" ] || fail "$file cannot be read"
  size=$(ls -Llnd -- "$file" | awk '{ print $5 }')
  [ "${size:-0}" -le $limit ] || fail "$file has more than $limit bytes"
}
case $file in
/*) ;;
*)
  eval "home=~$account"
  case $home in
  /*) file=$home/$file ;;
  *) fail "account $account does not exist, or has no home directory" ;;
  esac ;;
esac
if [ -h "$file" ]; then
  if to=$(readlink -f -- "$file"); then file=$to
  elif [ -e "$file" ]; then fail "$file is a link that cannot be followed"
  fi
fi
dir=$(dirname -- "$file")
`

// own is a function of the shell that fails where replacing the file would change who owns it.
const own = `
own() {
  if [ "$(id -u)" -ne 0 ] && [ "$(ls -ldn -- "$file" | awk '{ print $3 }')" != "$(id -u)" ]; then
    fail "$file belongs to another account than $(id -un); name it by an absolute path, which root changes"
  fi
}
`

// findKey is a function of awk that returns where the key begins in a line that lists it, as sshd
// reads a line: options end at the first space outside quotation marks. It returns 0 for any other
// line, for a comment, and for a key that a line names as a certificate authority.
const findKey = `
    function at(text, i, type, blob,   rest) {
      rest = substr(text, i)
      if (index(rest, type) != 1) return 0
      rest = substr(rest, length(type) + 1)
      if (rest !~ /^[ \t]/) return 0
      sub(/^[ \t]+/, "", rest)
      if (index(rest, blob) != 1) return 0
      rest = substr(rest, length(blob) + 1)
      return rest == "" || rest ~ /^[ \t\r]/
    }
    function find(text, type, blob,   i, c, quoted, plain) {
      match(text, /^[ \t]*/)
      i = RLENGTH + 1
      if (substr(text, i, 1) == "#") return 0
      if (at(text, i, type, blob)) return i
      if (!index(text, blob)) return 0
      for (; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c == "\\" && substr(text, i + 1, 1) == "\"") i++
        else if (c == "\"") quoted = !quoted
        else if (!quoted && (c == " " || c == "\t")) break
        else if (!quoted) plain = plain c
      }
      if ("," tolower(plain) "," ~ /,cert-authority,/) return 0
      while (substr(text, i, 1) ~ /[ \t]/) i++
      return at(text, i, type, blob) ? i : 0
    }
`

// editBody changes a list of keys: action "add" puts a line of the new key after each line of the
// old one, with the options of that line as they are written; "append" adds a line at the end;
// "remove" removes each line of the old key. It prints how many lines of the old key and of the new
// key there are before.
const editBody = own + locate + `
if [ ! -f "$file" ]; then
  if [ "$action" != append ]; then echo "0 0"; echo; echo ` + done + `; exit 0; fi
  [ ! -e "$file" ] || fail "$file is not a regular file"
  [ -d "$dir" ] || mkdir -p -- "$dir" || fail "$dir cannot be created"
  (set -C; : >"$file") 2>/dev/null || [ -e "$file" ] || fail "$file cannot be created"
fi
readable
if command -v flock >/dev/null 2>&1; then
  exec 9<"$dir" && flock -w 10 9 || fail "$dir is locked by another program"
fi
seen= new= counts=
trap 'rm -f -- "$seen" "$new" "$counts"' 0
tries=0
while :; do
  tries=$((tries + 1))
  [ "$tries" -le 10 ] || fail "another program keeps changing $file"
  rm -f -- "$seen" "$new" "$counts"
  seen=$(mktemp "$file.keyturn.XXXXXX") && new=$(mktemp "$file.keyturn.XXXXXX") &&
    counts=$(mktemp "$file.keyturn.XXXXXX") || fail "$dir cannot be written"
  bounded cp -p -- "$file" "$seen" && cp -p -- "$seen" "$new" || fail "$file cannot be copied"
  readonly=
  [ -w "$new" ] || { readonly=yes; chmod u+w -- "$new"; }
  ACTION=$action OPTIONS=$options LINE=$line TYPE=$type BLOB=$blob \
    OLD_TYPE=$oldtype OLD_BLOB=$oldblob COUNTS=$counts awk '` +
	findKey + `
    {
      text[NR] = $0
      if (i = find($0, ENVIRON["OLD_TYPE"], ENVIRON["OLD_BLOB"])) {
        old++
        is[NR] = 1
        prefix[NR] = substr($0, 1, i - 1)
      }
      if (i = find($0, ENVIRON["TYPE"], ENVIRON["BLOB"])) { new++; have[substr($0, 1, i - 1)] = 1 }
    }
    END {
      print old + 0, new + 0 >ENVIRON["COUNTS"]
      for (n = 1; n <= NR; n++) {
        if (is[n] && ENVIRON["ACTION"] == "remove") { changed = 1; continue }
        print text[n]
        if (!is[n] || ENVIRON["ACTION"] != "add" || (prefix[n] in have)) continue
        have[prefix[n]] = changed = 1
        print prefix[n] ENVIRON["LINE"]
      }
      if (ENVIRON["ACTION"] == "append" && !new) { changed = 1; print ENVIRON["OPTIONS"] ENVIRON["LINE"] }
      if (!changed) exit 3
    }' <"$seen" >"$new"
  case $? in
  0) ;;
  3) break ;;
  *) fail "$file cannot be rewritten" ;;
  esac
  own
  [ -z "$readonly" ] || chmod u-w -- "$new" || fail "$new cannot be changed"
  bounded cmp -s -- "$file" "$seen" || continue
  sync -- "$new" 2>/dev/null
  mv -f -- "$new" "$file" || fail "$file cannot be replaced"
  sync -- "$dir" 2>/dev/null
  break
done
cat -- "$counts"
`

// edit is a change of one list of keys.
type edit struct {
	action    string // "add", "append" or "remove"
	old, line string // lines of authorized_keys, without options
	options   string // of the line that is appended
}

// script returns the commands of an edit.
func (e edit) script(path, account string) string {
	old, line := strings.Fields(e.old), strings.Fields(e.line)
	options := e.options
	if options != "" {
		options += " "
	}
	return script(editBody,
		"action", e.action,
		"file", path,
		"account", account,
		"options", options,
		"type", line[0],
		"blob", line[1],
		"line", e.line,
		"oldtype", old[0],
		"oldblob", old[1],
	)
}

// printFile prints a list of keys.
const printFile = `bounded head -c "$limit" -- "$file" || fail "$file cannot be read"
`

// readKeys prints a list of keys; one that sshd ignores is empty.
func readKeys(path, account string) string {
	read := locate + "if [ -f \"$file\" ]; then\nreadable\n" + printFile + "fi\n"
	return script(read, "file", path, "account", account)
}
