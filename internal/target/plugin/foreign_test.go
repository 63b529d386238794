package plugin_test

import (
	"encoding/json"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// TestForeignWords verifies that no word of a plug-in is shown as a command of Keyturn.
func TestForeignWords(t *testing.T) {
	t.Parallel()
	const name = targettest.HostileName
	body, err := json.Marshal(map[string]any{"result": "ok", "window": name, "findings": []any{
		map[string]string{"code": "x", "verdict": "impossible", "message": name, "fix": name},
	}})
	targettest.Must(t, err)
	tt, _ := answering(string(body), true)
	list, err := checkOf(t, tt)
	targettest.Must(t, err)
	targettest.Harmless(t, append(list, target.Finding{Text: tt.Window(target.Single)}))
	body, err = json.Marshal(map[string]any{"result": "denied", "message": name})
	targettest.Must(t, err)
	tt, _ = answering(string(body), true)
	_, err = checkOf(t, tt)
	targettest.Harmless(t, nil, err)
}
