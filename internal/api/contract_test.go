package api

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

// contract is testdata/operations.json, the public reference as data.
type contract struct {
	CommonErrors []contractError `json:"commonErrors"`
	Operations   []contractOp    `json:"operations"`
}

type contractError struct {
	Code    string `json:"code"`
	HTTP    int    `json:"http"`
	Message string `json:"message"`
}

type contractOp struct {
	Name, Version, Idempotent string
	Methods                   []string
	Parameters                []contractParam
	Response                  []struct{ Path, Type, When string }
	Errors                    []contractError
	RAM                       struct {
		Action, Resource string
		Also             []struct{ Action, Resource string }
	}
}

type contractParam struct {
	Name, Type, Unit, Pattern string
	Required                  bool
	Min, Max                  *int
	Enum                      []string
	Default                   *string
}

// difference is a deliberate one. docs/compat.md has the same list in words.
type difference struct{ op, field, ours, theirs, reason string }

// everyError is the op of a difference that is not of one operation but of a code.
const everyError = "*"

const (
	noCustomerKeys   = "there are no customer keys yet, only the default key, which needs no permission"
	policyWithSecret = "with Policy only: who may create secrets may not give rights to them for that"
	keyStates        = "the default key has no such state, and there are no customer keys yet"
	noKeyOps         = "key operations come with customer keys; until then 400 UnsupportedOperation"
	noRoles          = "there are no roles yet; 404 InvalidAction.NotFound"
	newerSchema      = "newer schemas only; the reference itself says omit"
	nameCharacters   = "the reference gives the length alone; the characters of a name are its safe check"
	nameOnly         = "a name, no ARN; so the characters of a name are checked"
	anyPolicyName    = "another name is not found by the reference's own rule, so 404 and not 400"
	checkedByRule    = "the rule that reads the interval checks it, and names the units"
	onlyWithoutID    = "assumed by the rule, and only when VersionId is absent too"
	dryRunOnly       = "in the text for GetSecretValue, not in the data"
	stsCodes         = "the token service answers with the codes of KMS here"
	ownWarning       = "our own: the secret cannot be rotated without another one that is deleted"
	nameSet          = "[A-Za-z0-9_/+=.@-]+"
)

var differences = slices.Concat([]difference{
	{"CreateSecret", "parameter VersionId pattern", nameSet, "", nameCharacters},
	{"PutSecretValue", "parameter VersionId pattern", nameSet, "", nameCharacters},
	{"RotateSecret", "parameter VersionId pattern", nameSet, "", nameCharacters},
	{"UpdateSecretVersionStage", "parameter VersionStage pattern", nameSet, "", nameCharacters},
	{"TagResource", "parameter SecretName pattern", nameSet, "", nameOnly},
	{"UntagResource", "parameter SecretName pattern", nameSet, "", nameOnly},
	{"CreateSecret", "parameter RotationInterval pattern", "", "[0-9]+[dhms]?", checkedByRule},
	{"UpdateSecretRotationPolicy", "parameter RotationInterval pattern", "", "[0-9]+[dhms]?", checkedByRule},
	{"GetSecretValue", "parameter VersionStage default", "", "ACSCurrent", onlyWithoutID},
	{"GetSecretPolicy", "parameter PolicyName enum", "", "default", anyPolicyName},
	{"SetSecretPolicy", "parameter PolicyName enum", "", "default", anyPolicyName},

	{
		"CreateSecret", "ram also kms:SetSecretPolicy", "acs:kms:${region}:${account}:secret/${SecretName}", "",
		policyWithSecret,
	},
	{
		"CreateSecret", "ram also kms:GenerateDataKey", "", "acs:kms:${region}:${account}:key/${EncryptionKeyId}",
		noCustomerKeys,
	},
	{
		"PutSecretValue", "ram also kms:GenerateDataKey", "", "acs:kms:${region}:${account}:key/${EncryptionKeyId}",
		noCustomerKeys,
	},
	{"GetSecretValue", "ram also kms:Decrypt", "", "acs:kms:${region}:${account}:key/${EncryptionKeyId}", noCustomerKeys},

	{"RestoreSecret", "response Warning", "string sometimes", "", ownWarning},
	{"DescribeSecret", "response Creator", "", "string sometimes", newerSchema},
	{"DescribeSecret", "response OwingService", "", "string sometimes", newerSchema},
	{"ListSecrets", "response SecretList.Secret[].OwingService", "", "string sometimes", newerSchema},

	{everyError, "error Forbidden.KmsServiceNotEnabled", "none", "403", "the service is always enabled here"},
	{everyError, "error Rejected.PendingDeletion", "none", "409", keyStates},
	{everyError, "error Rejected.PendingImport", "none", "409", keyStates},
	{
		everyError, "error InvalidSecurityToken.Malformed", "none", "400",
		"a token is opaque: one that is not the key's is MismatchWithAccessKey",
	},
	{everyError, "error NoPermission", "none", "403", stsCodes},
	{everyError, "error InternalError", "none", "500", stsCodes},
	{
		everyError, "error MissingAccessKeyId", "400", "none",
		"in the text on codes before the operation runs, not in the data",
	},
	{everyError, "error DryRunOperationError", "400", "none", dryRunOnly},
	{everyError, "error ValidationError", "400", "none", dryRunOnly},
	{everyError, "error AccessDeniedError", "403", "none", dryRunOnly},
}, ownPermissions("CreateSecret", rotatesAccounts...), ownPermissions("RotateSecret", rotatesAccounts...),
	ownPermissions("RotateSecret", readsValue),
	ownPermissions("UpdateSecretRotationPolicy", rotatesAccounts...),
	ownPermissions("UpdateSecretRotationPolicy", readsValue), missing(noKeyOps,
		"CreateKey", "DescribeKey", "ListKeys", "EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion",
		"UpdateKeyDescription", "CreateAlias", "UpdateAlias", "DeleteAlias", "ListAliases", "ListAliasesByKeyId", "Encrypt",
		"Decrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "CreateKeyVersion", "ListKeyVersions",
		"DescribeKeyVersion", "UpdateRotationPolicy",
	), missing(noRoles, "AssumeRole", "AssumeRoleWithOIDC"))

// rotatesAccounts and readsValue are permissions that operations of the cloud need here beside
// their own.
var (
	rotatesAccounts = []operation.Permission{
		{Action: actionRotateAccount, Resource: "target/${TargetName}/account/${AccountName}"},
		{Action: actionCreateAccessKey, Resource: "user/${UserName}"},
		{Action: actionDeleteAccessKey, Resource: "user/${UserName}"},
	}
	readsValue = operation.Permission{Action: actionGetSecretValue, Resource: "secret/${SecretName}"}
)

func ourPermission(p operation.Permission) string {
	if strings.HasPrefix(p.Action, "ram:") {
		return "acs:ram::${account}:" + p.Resource
	}
	return ourResource(p.Resource)
}

// ownPermissions are differences: permissions of an operation that the cloud does not ask for.
func ownPermissions(operation string, list ...operation.Permission) []difference {
	var out []difference
	for _, p := range list {
		out = append(out,
			difference{
				operation, "ram also " + p.Action, ourPermission(p), "",
				"a caller who has an account changed, or decides where a value is sent, needs the right on it",
			})
	}
	return out
}

// ownOperations returns the operations that the cloud does not have: those in the table of
// docs/compat.md.
func ownOperations(t *testing.T) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(ownTable(t)) {
		if name, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ = strings.Cut(name, "`")
			names = append(names, name)
		}
	}
	return names
}

// ownTable returns the part of docs/compat.md with those operations.
func ownTable(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/compat.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(data), "\n## Operations of Keyturn's own\n")
	part, _, _ = strings.Cut(part, "\n## ")
	return part
}

// ownParameters are parameters that the cloud does not have, of operations that it has.
var ownParameters = map[string][]string{"GetSecretValue": {"Consumer"}}

func isKnown(version, name string) bool {
	return protocol.Find(version, name) != nil
}

// missing are operations that the reference has and the server has not.
func missing(reason string, ops ...string) []difference {
	var list []difference
	for _, op := range ops {
		list = append(list, difference{op, "operation", "none", "known", reason})
	}
	return list
}

func readContract(t *testing.T) contract {
	t.Helper()
	data, err := os.ReadFile("testdata/operations.json")
	if err != nil {
		t.Fatal(err)
	}
	var c contract
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatalf("testdata/operations.json: %v", err)
	}
	return c
}

// TestContract holds the operation table and the code table against the reference. A difference
// that is not in the list fails, and so does one in the list that is no longer one.
func TestContract(t *testing.T) {
	t.Parallel()
	c := readContract(t)
	found := compareOps(c, ownOperations(t))
	found = append(found, compareCodes(c)...)
	listed := map[difference]bool{}
	for _, d := range differences {
		if d.reason == "" {
			t.Errorf("difference %s, %s: no reason", d.op, d.field)
		}
		d.reason = ""
		if listed[d] {
			t.Errorf("difference %s, %s: listed twice", d.op, d.field)
		}
		listed[d] = true
	}
	for _, d := range found {
		if !listed[d] {
			t.Errorf("%s, %s: ours %q, theirs %q: an unlisted difference", d.op, d.field, d.ours, d.theirs)
		}
		delete(listed, d)
	}
	for d := range listed {
		t.Errorf("%s, %s: ours %q, theirs %q: listed, but no longer a difference", d.op, d.field, d.ours, d.theirs)
	}
}

// TestOwnOperations verifies that each operation in the table of docs/compat.md is declared under
// the version of KMS, and not in the reference: an official client never meets one under a name
// that it knows.
func TestOwnOperations(t *testing.T) {
	t.Parallel()
	c, own := readContract(t), ownOperations(t)
	if len(own) == 0 {
		t.Error("docs/compat.md lists no operation of Keyturn's own")
	}
	for i, name := range own {
		switch {
		case slices.Contains(own[:i], name):
			t.Errorf("%s: listed twice", name)
		case !isKnown(kms.Version, name):
			t.Errorf("%s: listed, but not declared", name)
		case slices.ContainsFunc(c.Operations, func(theirs contractOp) bool { return theirs.Name == name }):
			t.Errorf("%s: the reference has it", name)
		}
	}
}

func compareOps(c contract, own []string) []difference {
	var found []difference
	ours := map[string]bool{}
	for _, o := range protocol.Operations() {
		if o.Version == ram.Version {
			continue // compared in access_test.go and ram_test.go
		}
		ours[o.Name] = true
		i := slices.IndexFunc(c.Operations, func(theirs contractOp) bool { return theirs.Name == o.Name })
		switch {
		case i < 0 && slices.Contains(own, o.Name):
			continue
		case i < 0:
			found = append(found, difference{op: o.Name, field: "operation", ours: "known", theirs: "none"})
			continue
		}
		found = append(found, compareOp(o, c.Operations[i])...)
	}
	for _, theirs := range c.Operations {
		if !ours[theirs.Name] {
			found = append(found, difference{op: theirs.Name, field: "operation", ours: "none", theirs: "known"})
		}
	}
	return found
}

// facts are what one side says of an operation: field to value. Comparing two of them is comparing
// two maps.
type facts map[string]string

func compareOp(o *operation.Op, theirs contractOp) []difference {
	a, b := ourFacts(o), theirFacts(theirs)
	var found []difference
	for field, value := range a {
		if b[field] != value {
			found = append(found, difference{op: o.Name, field: field, ours: value, theirs: b[field]})
		}
	}
	for field, value := range b {
		if _, ok := a[field]; !ok && value != "" {
			found = append(found, difference{op: o.Name, field: field, theirs: value})
		}
	}
	return found
}

func ourFacts(o *operation.Op) facts {
	f := facts{
		"version":    o.Version,
		"methods":    strings.Join(o.Methods, " "),
		"ram action": o.Action,
		"kind":       kindOf(o.Mutates),
	}
	if o.Action != "" {
		f["ram resource"] = ourResource(o.Resource)
	}
	for _, p := range o.Also {
		f["ram also "+p.Action] = ourPermission(p)
	}
	for _, p := range o.Params() {
		if slices.Contains(ownParameters[o.Name], p.Name) {
			continue
		}
		field := "parameter " + p.Name
		f[field+" type"] = p.Type
		f[field+" required"] = strconv.FormatBool(p.Required)
		f[field+" min"] = number(p.Min, p.HasMin)
		f[field+" max"] = number(p.Max, p.Max > 0)
		f[field+" unit"] = unit(p.Bytes)
		f[field+" enum"] = strings.Join(p.Enum, " ")
		f[field+" default"] = p.Default
		f[field+" pattern"] = map[string]string{"name": nameSet}[p.Pattern]
	}
	ourResponse(f, "", o.Response(), true)
	return f
}

func kindOf(change bool) string {
	if change {
		return "change"
	}
	return "read"
}

func number(n int, ok bool) string {
	if !ok {
		return ""
	}
	return strconv.Itoa(n)
}

func unit(bytes bool) string {
	if bytes {
		return "bytes"
	}
	return ""
}

// ourResource is Op.Resource in the words of the reference.
func ourResource(s string) string {
	const prefix = "acs:kms:${region}:${account}:"
	switch s {
	case "*", "key or secret", "each":
		return s
	}
	return prefix + s
}

func theirResource(s string) string {
	switch {
	case strings.HasPrefix(s, "the key"):
		return "key or secret"
	case strings.HasPrefix(s, "each "):
		return "each"
	}
	return s
}

var (
	valueType = reflect.TypeFor[sensitive.Value]()
	timeType  = reflect.TypeFor[time.Time]()
)

// ourResponse flattens a response struct into paths. A member of something that may be absent may
// be absent.
func ourResponse(f facts, prefix string, t reflect.Type, always bool) {
	for _, field := range wire.Fields(t) {
		path, there := prefix+field.Name, always && !field.OmitEmpty
		ft := field.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch {
		case field.List != "":
			item := path + "." + field.List + "[]"
			f["response "+path] = presence("object", there)
			if ft.Elem().Kind() == reflect.String {
				f["response "+item] = presence("string", there)
				continue
			}
			f["response "+item] = presence("object", there)
			ourResponse(f, item+".", ft.Elem(), there)
		case ft == valueType, ft == timeType, ft.Kind() == reflect.String:
			f["response "+path] = presence("string", there)
		case ft.Kind() == reflect.Int:
			f["response "+path] = presence("integer", there)
		default:
			f["response "+path] = presence("object", there)
			ourResponse(f, path+".", ft, there)
		}
	}
}

func presence(kind string, always bool) string {
	if always {
		return kind + " always"
	}
	return kind + " sometimes"
}

func theirFacts(o contractOp) facts {
	f := facts{
		"version": o.Version, "methods": strings.Join(o.Methods, " "), "ram action": o.RAM.Action,
		"kind": kindOf(o.Idempotent != "read"), "ram resource": theirResource(o.RAM.Resource),
	}
	for _, a := range o.RAM.Also {
		f["ram also "+a.Action] = a.Resource
	}
	for _, p := range o.Parameters {
		field := "parameter " + p.Name
		f[field+" type"] = p.Type
		f[field+" required"] = strconv.FormatBool(p.Required)
		f[field+" min"] = number(deref(p.Min), p.Min != nil)
		f[field+" max"] = number(deref(p.Max), p.Max != nil)
		f[field+" unit"] = p.Unit
		f[field+" enum"] = strings.Join(p.Enum, " ")
		f[field+" pattern"] = p.Pattern
		if p.Default != nil {
			f[field+" default"] = *p.Default
		}
	}
	for _, r := range o.Response {
		f["response "+r.Path] = presence(r.Type, r.When == "always")
	}
	return f
}

func deref(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

// compareCodes holds the code table against every error of the reference for the operations that
// the server has. Messages that are not in the table are held against the reference by the goldens
// of package rpc.
func compareCodes(c contract) []difference {
	ours := map[string]protocol.Code{}
	for kind := fault.OK + 1; kind < fault.Kinds; kind++ {
		code := protocol.CodeFor(&fault.Error{Kind: kind, Param: "<name>"})
		ours[code.Code] = code
	}
	theirs := map[string]contractError{}
	for _, e := range c.CommonErrors {
		theirs[e.Code] = e
	}
	for _, o := range c.Operations {
		if !isKnown(o.Version, o.Name) {
			continue
		}
		for _, e := range o.Errors {
			theirs[e.Code] = e
		}
	}
	var found []difference
	for code, e := range theirs {
		mine, ok := ours[code]
		switch {
		case !ok:
			found = append(found, difference{everyError, "error " + code, "none", strconv.Itoa(e.HTTP), ""})
		case mine.Status != e.HTTP:
			found = append(found,
				difference{everyError, "error " + code + " status", strconv.Itoa(mine.Status), strconv.Itoa(e.HTTP), ""})
		case mine.Message != "" && !strings.HasPrefix(mine.Message, e.Message):
			found = append(found, difference{everyError, "error " + code + " message", mine.Message, e.Message, ""})
		}
	}
	for code, mine := range ours {
		if _, ok := theirs[code]; !ok {
			found = append(found, difference{everyError, "error " + code, strconv.Itoa(mine.Status), "none", ""})
		}
	}
	return found
}

// TestARNParameters: every operation on one secret takes its ARN, but for the one that makes the
// name and the two older tag calls, which the reference excepts (secrets.md section 2). So does
// whatever names the secret with an administrator or a client certificate.
func TestARNParameters(t *testing.T) {
	t.Parallel()
	names := []string{"CreateSecret", "TagResource", "UntagResource"}
	for _, o := range protocol.Operations() {
		for _, p := range o.Params() {
			want := p.Name == "SecretName" && !slices.Contains(names, o.Name) ||
				p.Name == "AdminSecretName" || p.Name == "LoginCertificateSecret"
			if p.ARN != want {
				t.Errorf("%s, parameter %s: takes an ARN: %t; want %t", o.Name, p.Name, p.ARN, want)
			}
		}
	}
}

// TestSecretIsAllThatACallIsOn verifies that the secret by which an agent judges whether to pass a
// call on is the only resource on which the server judges that call.
func TestSecretIsAllThatACallIsOn(t *testing.T) {
	t.Parallel()
	found, endpoints := 0, byOperation(served)
	for _, o := range protocol.Operations() {
		in := reflect.New(o.Request()).Interface()
		if field := reflect.ValueOf(in).Elem().FieldByName("SecretName"); field.IsValid() {
			field.SetString("app")
		}
		name, ok := o.Secret(in)
		if !ok {
			continue
		}
		found++
		c := &Call{Env: &Env{Region: "local"}}
		resources, err := endpoints[o].resources(c, in)
		if err != nil || name != "app" || len(resources) != 1 || resources[0] != c.secretResource("app") {
			t.Errorf("%s: is on %q, and is judged on %v, %v", o.Name, name, resources, err)
		}
	}
	if found == 0 {
		t.Error("no operation is on a secret")
	}
}

// TestNotHere: an operation of the reference is in the table, or known and refused as unsupported,
// or of the token service and not found.
func TestNotHere(t *testing.T) {
	t.Parallel()
	for _, o := range readContract(t).Operations {
		var err error
		if !isKnown(o.Version, o.Name) {
			err = protocol.NotFound(o.Version, o.Name)
		}
		want := fault.OK
		switch {
		case o.Version == kms.STSVersion && !isKnown(o.Version, o.Name):
			want = fault.NoAction
		case !isKnown(o.Version, o.Name):
			want = fault.Unsupported
		}
		if fault.KindOf(err) != want {
			t.Errorf("%s: %v; want kind %d", o.Name, err, want)
		}
	}
}

// TestCompatDocument: docs/compat.md has a row for every difference and for every code, and no
// other.
func TestCompatDocument(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/compat.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(data)
	cell := func(s string) string {
		if s == "" {
			return "-"
		}
		return "`" + s + "`"
	}
	for _, d := range differences {
		row := fmt.Sprintf("| %s | %s | %s | %s | %s |\n", cell(d.op), d.field, cell(d.ours), cell(d.theirs), d.reason)
		if strings.Count(document, row) != 1 {
			t.Errorf("docs/compat.md has this row %d times; want once:\n%s", strings.Count(document, row), row)
		}
	}
	_, list, _ := strings.Cut(document, "\n## Differences from the reference\n")
	if rows := strings.Count(list, "\n| `"); rows != len(differences) {
		t.Errorf("docs/compat.md lists %d differences; there are %d", rows, len(differences))
	}
	_, list, _ = strings.Cut(document, "\n## Error codes\n")
	list, _, _ = strings.Cut(list, "\n## ")
	for kind := fault.OK + 1; kind < fault.Kinds; kind++ {
		code := protocol.CodeFor(&fault.Error{Kind: kind})
		if row := fmt.Sprintf("\n| `%s` | %d | ", code.Code, code.Status); strings.Count(list, row) != 1 {
			t.Errorf("docs/compat.md has %d rows for %s, %d; want one", strings.Count(list, row), code.Code, code.Status)
		}
	}
	if rows := strings.Count(list, "\n| `"); rows != int(fault.Kinds)-1 {
		t.Errorf("docs/compat.md lists %d codes; there are %d", rows, fault.Kinds-1)
	}
	for _, o := range protocol.Operations() {
		if !strings.Contains(document, o.Name) {
			t.Errorf("docs/compat.md does not name %s", o.Name)
		}
	}
	for _, name := range ownOperations(t) {
		op := protocol.Named(name)
		row := fmt.Sprintf("\n| `%s` | %s | `%s` |", name, parameters(op), op.Resource)
		if !strings.Contains(ownTable(t), row) {
			t.Errorf("docs/compat.md lacks this row:%s", row)
		}
	}
}

// parameters is what docs/compat.md says of them: the required ones in bold.
func parameters(o *operation.Op) string {
	var list []string
	for _, p := range o.Params() {
		name := p.Name
		if p.Required {
			name = "**" + name + "**"
		}
		if len(p.Enum) > 0 {
			name += " (" + strings.Join(p.Enum, ", ") + ")"
		}
		list = append(list, name)
	}
	return strings.Join(list, ", ")
}
