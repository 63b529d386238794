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

// rootLauncher starts a shell as root that reads its commands from the input.
const rootLauncher = `sh -c 'if [ "$(id -u)" -eq 0 ]; then exec sh -s; fi; exec sudo -n -- sh -s'`

// keysLauncher starts a shell as the one who changes an account's list of keys. Below a home
// directory that is the account itself: root following links in a directory of somebody else's
// could be led anywhere.
func (h *host) keysLauncher(account string) string {
	switch {
	case h.Self:
		return "sh -s"
	case strings.HasPrefix(h.AuthorizedKeys, "/"):
		return rootLauncher
	}
	return strings.ReplaceAll(`sh -c 'PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -un)" = "NAME" ]; then exec sh -s; fi
if [ "$(id -u)" -ne 0 ]; then exec sudo -n -u "NAME" -- sh -s; fi
if command -v runuser >/dev/null 2>&1; then exec runuser -u "NAME" -- sh -s; fi
exec su -s /bin/sh "NAME" -c "exec sh -s"'`, "NAME", account)
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

// locate sets file.
const locate = `
case $file in
/*) ;;
*)
  eval "home=~$account"
  case $home in
  /*) file=$home/$file ;;
  *) fail "account $account does not exist, or has no home directory" ;;
  esac ;;
esac
if [ -h "$file" ]; then file=$(readlink -f -- "$file") || fail "$file is a link to nowhere"; fi
dir=$(dirname -- "$file")
`

const editBody = locate + `
if [ ! -e "$file" ]; then
  if [ "$action" = remove ]; then echo; echo ` + done + `; exit 0; fi
  [ -d "$dir" ] || mkdir -p -- "$dir" || fail "$dir cannot be made"
  (set -C; : >"$file") 2>/dev/null || [ -e "$file" ] || fail "$file cannot be made"
fi
[ -f "$file" ] && [ -r "$file" ] || fail "$file is not a file that can be read"
if command -v flock >/dev/null 2>&1; then
  exec 9<"$dir" && flock -w 10 9 || fail "$dir is locked by somebody else"
fi
seen= new=
trap 'rm -f -- "$seen" "$new"' 0
tries=0
while :; do
  tries=$((tries + 1))
  [ "$tries" -le 10 ] || fail "$file is changed by somebody else all the time"
  rm -f -- "$seen" "$new"
  seen=$(mktemp "$file.keyturn.XXXXXX") && new=$(mktemp "$file.keyturn.XXXXXX") || fail "$dir cannot be written"
  cp -p -- "$file" "$seen" && cp -p -- "$seen" "$new" || fail "$file cannot be copied"
  ACTION=$action TYPE=$type BLOB=$blob LINE=$line awk '
    function ours(text,   f, n, i) {
      sub(/\r$/, "", text)
      if (text ~ /^[ \t]*#/) return 0
      n = split(text, f)
      for (i = 1; i < n; i++) if (f[i] == ENVIRON["TYPE"] && f[i + 1] == ENVIRON["BLOB"]) return 1
      return 0
    }
    ours($0) { found = 1; if (ENVIRON["ACTION"] == "remove") next }
    { print }
    END {
      if (ENVIRON["ACTION"] == "add" && !found) print ENVIRON["LINE"]
      else if (ENVIRON["ACTION"] == "add" || !found) exit 3
    }' <"$seen" >"$new"
  case $? in
  0) ;;
  3) break ;;
  *) fail "$file cannot be rewritten" ;;
  esac
  cmp -s -- "$file" "$seen" || continue
  sync -- "$new" 2>/dev/null
  mv -f -- "$new" "$file" || fail "$file cannot be replaced"
  sync -- "$dir" 2>/dev/null
  break
done
`

// editKeys adds or removes a line of a list of keys.
func editKeys(action, path, account, authorized string) string {
	fields := strings.Fields(authorized)
	return script(editBody,
		"action", action,
		"file", path,
		"account", account,
		"type", fields[0],
		"blob", fields[1],
		"line", authorized,
	)
}

// readKeys prints a list of keys.
func readKeys(path, account string) string {
	read := locate + `if [ -e "$file" ]; then cat -- "$file" || fail "$file cannot be read"; fi` + "\n"
	return script(read, "file", path, "account", account)
}

// stored sets hash. What is no hash of a password is not replaced by one: that would unlock the
// account.
const stored = `
id -- "$account" >/dev/null 2>&1 || fail "account $account does not exist"
stored() {
  { getent shadow "$account" 2>/dev/null || cat /etc/shadow; } | awk -F: -v a="$account" '$1 == a { print $2 }'
}
hash=$(stored) || fail "the hashes of passwords cannot be read"
`

// setPassword sets the hash of a password.
func setPassword(account, hash string) string {
	return script(stored+`
case $hash in
'') fail "account $account has no password to replace" ;;
'!'* | '*'*) fail "the password of account $account is locked; unlock it first" ;;
esac
chpasswd -e <<HASH || fail "chpasswd does not set it"
$account:$want
$account:$want
HASH
[ "$(stored)" = "$want" ] || fail "chpasswd has set something else"
`, "account", account, "want", hash)
}

// readHash prints the hash of a password.
func readHash(account string) string {
	return script(stored+"printf '%s\\n' \"$hash\"\n", "account", account)
}
