package ssh

import "github.com/keyturn/keyturn/internal/target"

// Judge reads what a host says of an account, and judges it.
func Judge(text, account, administrator string) (target.Standing, error) {
	f, err := parseLookUp(text)
	if err != nil {
		return target.Standing{}, err
	}
	return f.standing(account, administrator), nil
}

// EditKeys is the script that appends a key to a list or removes it, with another key beside it.
func EditKeys(action, file, account, old, line string) string {
	return edit{action: action, old: old, line: line}.script(file, account)
}
