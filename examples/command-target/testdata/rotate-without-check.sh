#!/bin/sh
# A command target for Keyturn: an example to copy from. It rotates the API keys of a service that reads, from a file, one
# line for each key: the account as a JSON string, a tab, the key's SHA-256.
#
# In the server's configuration, and in the target's:
#
#   command: ["rotate=KEYTURN_KEYS=/srv/service/keys /usr/local/lib/keyturn/rotate.sh"]
#   {"command": "rotate", "strategy": "overlap"}
#
# It needs jq, flock and sha256sum. Secrets go through standard input and builtins only, so that no list of processes and no
# trace shows them. docs/plugin.md says what is asked and what may be answered.
set -eu
umask 077

answer() { # result [code message], none of which needs quoting
  printf '{"result":"%s","code":"%s","message":"%s"}\n' "$1" "${2-}" "${3-}"
  exit 0
}

# Whatever fails here fails before the file is replaced, so it has changed nothing.
trap 'status=$?; [ $status -eq 0 ] || answer unavailable script "the script failed; see its errors"' EXIT

# The message as assignments. @sh quotes for a shell; what has been quoted is never expanded again.
eval "$(jq -r '@sh "protocol=\(.protocol) step=\(.step) strategy=\(.strategy)
  account=\(.new.account // "" | tojson) new=\(.new.secret // "") length=\(.new.secret // "" | length)
  old_account=\(.old.account // "" | tojson) old=\(.old.secret // "")",
  "credentials() {", (.credentials // [] | .[] | @sh "state \(.account | tojson) \(.secret)"), ":; }"')"

[ "$protocol" = 1 ] || answer denied protocol 'not a message of protocol 1'
keys=${KEYTURN_KEYS:?names the file of keys}

# One at a time; the lock goes with the process.
exec 9>>"$keys.lock"
flock -w 10 9 || answer unavailable busy 'another change of the keys takes long'
[ -e "$keys" ] || : >"$keys"

line() { # account secret: what the file says of a key
  hash=$(printf '%s' "$2" | sha256sum)
  printf '%s\t%s\n' "$1" "${hash%% *}"
}

has() { # is it in the file? What grep cannot read is no answer.
  grep -Fxq -e "$1" "$keys" || { [ $? -eq 1 ] && return 1; exit 2; }
}

begin() { cp -p "$keys" "$keys.new"; } # with the owner and mode that the service needs
commit() { mv -f "$keys.new" "$keys"; }

state() { # account secret
  if has "$(line "$1" "$2")"; then word=live; else word=dead; fi
  states="${states:+$states,}\"$word\""
}

case $step in
set)
  [ "$length" -ge 20 ] || answer refused too-short 'an API key has at least 20 characters'
  new=$(line "$account" "$new")
  begin
  if [ "$strategy" = overlap ]; then
    grep -Fxv -e "$new" "$keys" >"$keys.new" || [ $? -eq 1 ]
  else # the only key of its account, which with "double" is not the one in use
    export account
    awk -F '\t' '$1 != ENVIRON["account"]' "$keys" >"$keys.new"
  fi
  printf '%s\n' "$new" >>"$keys.new"
  commit
  answer ok
  ;;
retire) # exactly the old key: another one that the account may have by now stays
  old=$(line "$old_account" "$old")
  begin
  grep -Fxv -e "$old" "$keys" >"$keys.new" || [ $? -eq 1 ]
  commit
  answer ok
  ;;
verify)
  if has "$(line "$account" "$new")"; then answer ok; else answer rejected no-such-key; fi
  ;;
state)
  states=
  credentials
  printf '{"result":"ok","states":[%s]}\n' "$states"
  ;;
*)
  answer denied step 'there is no such step'
  ;;
esac
