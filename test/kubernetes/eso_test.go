// Package kubernetes_test plays the manifests of docs/kubernetes.md: it renders them by the rules
// that the External Secrets Operator documents for its webhook provider, and makes the resulting
// calls to a real agent of a real server.
package kubernetes_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"text/template"
)

// object is one manifest.
type object map[string]any

// at follows members; what is not there is nil.
func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

func (o object) text(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

// operator does what the External Secrets Operator does with a ClusterSecretStore of the webhook
// provider.
type operator struct {
	client  *http.Client
	store   object
	secrets map[string]object // by namespace/name
}

var errNoSecret = errors.New("the provider says that there is no such secret")

// funcs are the functions of the operator that the page uses. Another one in a template is an
// error of this test.
var funcs = template.FuncMap{"trim": strings.TrimSpace}

func render(text string, data any) (string, error) {
	t, err := template.New("").Funcs(funcs).Parse(text)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = t.Execute(&out, data)
	return out.String(), err
}

// data is what the templates of a store see. In its URL the reference is escaped, and the Secrets
// are not.
func (o *operator) data(key string, escape bool) (map[string]map[string]string, error) {
	if escape {
		key = url.QueryEscape(key)
	}
	data := map[string]map[string]string{"remoteRef": {"key": key, "version": "", "property": ""}}
	named, _ := o.store.at("spec", "provider", "webhook", "secrets").([]any)
	for _, n := range named {
		entry := object(n.(map[string]any))
		name := entry.text("secretRef", "namespace") + "/" + entry.text("secretRef", "name")
		secret := o.secrets[name]
		if secret == nil || secret.text("metadata", "labels", "external-secrets.io/type") != "webhook" {
			return nil, fmt.Errorf("there is no Secret %s with the label external-secrets.io/type: webhook", name)
		}
		data[entry.text("name")] = map[string]string{}
		for member := range secret["stringData"].(map[string]any) {
			data[entry.text("name")][member] = secret.text("stringData", member)
		}
	}
	return data, nil
}

// call makes the request of a store for one key.
func (o *operator) call(key string) ([]byte, error) {
	escaped, err := o.data(key, true)
	if err != nil {
		return nil, err
	}
	raw, err := o.data(key, false)
	if err != nil {
		return nil, err
	}
	at, err := render(o.store.text("spec", "provider", "webhook", "url"), escaped)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, err
	}
	headers, _ := o.store.at("spec", "provider", "webhook", "headers").(map[string]any)
	for name, text := range headers {
		value, err := render(text.(string), raw)
		if err != nil {
			return nil, err
		}
		req.Header.Add(name, value)
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, errNoSecret
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("endpoint gave error %s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// result applies jsonPath, of which the page uses the root and members below it.
func (o *operator) result(body []byte) (any, error) {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, errors.New("the answer is not JSON")
	}
	path := o.store.text("spec", "provider", "webhook", "result", "jsonPath")
	if path == "" {
		return v, nil
	}
	names, ok := strings.CutPrefix(path, "$.")
	if !ok {
		return nil, fmt.Errorf("jsonPath %s is not of the form that this test knows", path)
	}
	for name := range strings.SplitSeq(names, ".") {
		m, _ := v.(map[string]any)
		if v, ok = m[name]; !ok {
			return nil, fmt.Errorf("unknown key %s", name)
		}
	}
	return v, nil
}

// one is an entry of data: without jsonPath the body as it is.
func (o *operator) one(key string) (string, error) {
	body, err := o.call(key)
	if err != nil || o.store.text("spec", "provider", "webhook", "result", "jsonPath") == "" {
		return string(body), err
	}
	v, err := o.result(body)
	if err != nil {
		return "", err
	}
	return flat(v)
}

// all is dataFrom.extract: the members of an object, or of a text that is one.
func (o *operator) all(key string) (map[string]string, error) {
	body, err := o.call(key)
	if err != nil {
		return nil, err
	}
	v, err := o.result(body)
	if err != nil {
		return nil, err
	}
	if text, ok := v.(string); ok {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return nil, errors.New("the value is not JSON")
		}
	}
	members, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the value is not a JSON object")
	}
	out := map[string]string{}
	for name, member := range members {
		if out[name], err = flat(member); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func flat(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case nil:
		return "", nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// sync is the content of the Secret that an ExternalSecret asks for.
func (o *operator) sync(external object) (map[string]string, error) {
	kind := external.text("spec", "secretStoreRef", "kind")
	name := external.text("spec", "secretStoreRef", "name")
	if kind != o.store.text("kind") || name != o.store.text("metadata", "name") {
		return nil, fmt.Errorf("there is no store %s/%s", kind, name)
	}
	data := map[string]string{}
	from, _ := external.at("spec", "dataFrom").([]any)
	for _, f := range from {
		members, err := o.all(object(f.(map[string]any)).text("extract", "key"))
		if err != nil {
			return nil, err
		}
		maps.Copy(data, members)
	}
	entries, _ := external.at("spec", "data").([]any)
	for _, e := range entries {
		entry := object(e.(map[string]any))
		value, err := o.one(entry.text("remoteRef", "key"))
		if err != nil {
			return nil, err
		}
		data[entry.text("secretKey")] = value
	}
	templates, ok := external.at("spec", "target", "template", "data").(map[string]any)
	if !ok {
		return data, nil
	}
	out := map[string]string{}
	for name, text := range templates {
		rendered, err := render(text.(string), data)
		if err != nil {
			return nil, err
		}
		out[name] = rendered
	}
	return out, nil
}

// allowed reports whether a store may be used from a namespace.
func (o *operator) allowed(namespace string) bool {
	conditions, _ := o.store.at("spec", "conditions").([]any)
	for _, c := range conditions {
		names, _ := object(c.(map[string]any))["namespaces"].([]any)
		for _, name := range names {
			if name == namespace {
				return true
			}
		}
	}
	return len(conditions) == 0
}

// TestRender holds the rules against what the operator documents of them, so that the other tests
// mean something.
func TestRender(t *testing.T) {
	t.Parallel()
	o := &operator{
		store: object{"spec": map[string]any{"provider": map[string]any{"webhook": map[string]any{
			"secrets": []any{map[string]any{"name": "auth", "secretRef": map[string]any{"name": "s", "namespace": "n"}}},
		}}}},
		secrets: map[string]object{"n/s": {"stringData": map[string]any{"token": "a/b"}}},
	}
	if _, err := o.data("k", false); err == nil {
		t.Error("a Secret without the label is read")
	}
	o.secrets["n/s"]["metadata"] = map[string]any{"labels": map[string]any{"external-secrets.io/type": "webhook"}}
	data, err := o.data("app/db+1", true)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := render("{{ .remoteRef.key }} {{ .auth.token }}", data); err != nil || got != "app%2Fdb%2B1 a/b" {
		t.Errorf("rendered %q, %v", got, err)
	}
	if _, err := render("{{ b64enc .auth.token }}", data); err == nil {
		t.Error("a function that this test does not know is taken")
	}
}
