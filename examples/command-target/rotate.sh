#!/bin/sh
# A command target for Keyturn: an example to copy from. It rotates the API keys of a service that reads, from a file, one
# line for each key: the account as a JSON string, a tab, the key's SHA-256, and, where the key may not do everything that its
# account may, a tab and its rights, such as scope=read;from=10.0.0.0/8. The rights belong to the key, so a new one gets them.
#
# In the server's configuration, and in the target's:
#
#   command: ["rotate=KEYTURN_KEYS=/srv/service/keys /usr/local/lib/keyturn/rotate.sh"]
#   {"command": "rotate", "strategy": "overlap", "check": true}
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

# The message as assignments. @sh quotes for a shell; what has been quoted is never expanded again. The account is that of
# the new key where there is one.
eval "$(jq -r '@sh "protocol=\(.protocol) step=\(.step) strategy=\(.strategy)
  account=\(.new.account // .account // "" | tojson) new=\(.new.secret // "") length=\(.new.secret // "" | length)
  old_account=\(.old.account // "" | tojson) old=\(.old.secret // "") partner=\(.partner // "" | tojson)",
  "credentials() {", (.credentials // [] | .[] | @sh "state \(.account | tojson) \(.secret)"), ":; }"')"
export account old_account partner strategy

[ "$protocol" = 1 ] || answer denied protocol 'not a message of protocol 1'
keys=${KEYTURN_KEYS:?names the file of keys}

# One at a time; the lock goes with the process.
exec 9>>"$keys.lock"
flock -w 10 9 || answer unavailable busy 'another change of the keys takes long'
[ -e "$keys" ] || : >"$keys"

digest() { # secret: what the file says of a key
  hash=$(printf '%s' "$1" | sha256sum)
  printf '%s\n' "${hash%% *}"
}

table() { awk -F '\t' -v OFS='\t' "$@" "$keys"; }

has() { # account secret: is the key in the file? What awk cannot read is no answer.
  a=$1 h=$(digest "$2") table '$1 == ENVIRON["a"] && $2 == ENVIRON["h"] { found = 1 } END { exit !found }' ||
    { [ $? -eq 1 ] && return 1; exit 2; }
}

begin() { cp -p "$keys" "$keys.new"; } # with the owner and mode that the service needs
commit() { mv -f "$keys.new" "$keys"; }

state() { # account secret
  if has "$1" "$2"; then word=live; else word=dead; fi
  states="${states:+$states,}\"$word\""
}

case $step in
set)
  [ "$length" -ge 20 ] || answer refused too-short 'an API key has at least 20 characters'
  # The new key may do what an earlier attempt gave it, or what the old one may. Without either, all keys of the account
  # must have the same rights; with "double" that is the account that is not in use.
  h=$(digest "$new") o=$(digest "$old")
  export h o
  rights=$(table '$1 != ENVIRON["account"] { next }
    !($3 in seen) { seen[$3]; n++; all = $3 }
    $2 == ENVIRON["h"] { exact["new"] = $3 }
    $2 == ENVIRON["o"] { exact["old"] = $3 }
    END { if ("new" in exact) print exact["new"]; else if ("old" in exact) print exact["old"]
      else if (n < 2) print all; else exit 3 }') || {
    [ $? -eq 3 ] || exit 2
    answer denied rights 'the keys of the account have different rights, and the old one is not among them'
  }
  export rights
  begin
  # With overlap beside the other keys; otherwise as the only key of its account.
  table '$1 != ENVIRON["account"] || ENVIRON["strategy"] == "overlap" && $2 != ENVIRON["h"]
    END { if (ENVIRON["rights"] == "") print ENVIRON["account"], ENVIRON["h"]
      else print ENVIRON["account"], ENVIRON["h"], ENVIRON["rights"] }' >"$keys.new"
  commit
  answer ok
  ;;
retire) # exactly the old key: another one that the account may have by now stays. With "double" its rights wait for the next.
  o=$(digest "$old")
  export o
  begin
  table '$1 != ENVIRON["old_account"] || $2 != ENVIRON["o"] { print; next }
    ENVIRON["strategy"] == "double" { $2 = "-"; print }' >"$keys.new"
  commit
  answer ok
  ;;
verify)
  if has "$account" "$new"; then answer ok; else answer rejected no-such-key; fi
  ;;
state)
  states=
  credentials
  printf '{"result":"ok","states":[%s]}\n' "$states"
  ;;
check) # a line for each finding: code, verdict, account, message, what to do
  o=$(digest "$old")
  export o
  table '$1 == ENVIRON["account"] { if ($2 == ENVIRON["o"]) { there = 1; rights = $3 } else if ($2 != "-") others++ }
    $1 == ENVIRON["partner"] { partner = 1; if (!($3 in seen)) { seen[$3]; n++ } }
    END { if (!there)
        print "no-such-key", "impossible", ENVIRON["account"], "The file of keys does not have the key in use.", "Add its hash."
      else if (rights != "")
        print "rights-kept", "note", ENVIRON["account"], "The key in use has rights of its own, which a new key gets: " rights ".", ""
      if (others && ENVIRON["strategy"] == "overlap")
        print "other-keys", "note", ENVIRON["account"], "The account has " others " other keys, which a rotation leaves alone.", ""
      if (others && ENVIRON["strategy"] == "single")
        print "other-keys-go", "needs-consent", ENVIRON["account"], "The account has " others " other keys, which a rotation removes.", \
          "Use the strategy overlap."
      if (ENVIRON["partner"] != "\"\"" && !partner)
        print "no-such-account", "impossible", ENVIRON["partner"], "The file of keys does not have the other account.", "Add a key of it."
      else if (partner && there && (n > 1 || !(rights in seen)))
        print "partner-differs", "needs-consent", ENVIRON["partner"], "The account has other rights than the one in use.", \
          "Give both the same rights." }' |
    jq -Rnc '{result: "ok", findings: [inputs | split("\t") |
      {code: .[0], verdict: .[1], account: (.[2] | fromjson), message: .[3], fix: .[4]}]}'
  ;;
*)
  answer denied step 'there is no such step'
  ;;
esac
