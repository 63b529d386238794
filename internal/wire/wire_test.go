package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

type pair struct {
	Key   string  `flat:"Key"`
	Value *string `flat:"Value"`
}

type request struct {
	Name   string            `kms:"Name,required,min=1,max=5,pattern=name,arn,literal=$Auto"`
	Data   sensitive.Value   `kms:"Data,min=1,max=4,bytes"`
	Text   *string           `kms:"Text,max=3"`
	Kind   string            `kms:"Kind,enum=a|b,default=a"`
	Flag   bool              `kms:"Flag,default=false"`
	Size   int               `kms:"Size,min=7,max=30,default=30"`
	Labels []string          `kms:"VersionStages,json"`
	Keys   []string          `kms:"TagKeys,json"`
	IDs    []string          `kms:"ID,flat,min=0,max=3"`
	Pairs  []pair            `kms:"Tag,flat,min=0,max=2"`
	Custom map[string]string `kms:"Config.Custom,json,flat"`
}

func given(list ...string) sign.Params {
	var p sign.Params
	for i := 0; i < len(list); i += 2 {
		p = append(p, sign.Param{Name: list[i], Value: list[i+1]})
	}
	return p
}

var opts = cmp.Comparer(func(a, b sensitive.Value) bool { return a.Equal(b) })

func TestDecode(t *testing.T) {
	t.Parallel()
	text, empty := "é中x", ""
	for _, tt := range []struct {
		name string
		in   sign.Params
		want request
	}{
		{"defaults", given("Name", "x", "Unknown", "y", "Kind", ""), request{}},
		{"all", given("Name", "a/b", "Data", "é中"[:2]+"ab", "Text", text, "Kind", "b", "Flag", "TRUE", "Size", "7"),
			request{Name: "a/b", Data: sensitive.New("éab"), Text: &text, Kind: "b", Flag: true, Size: 7}},
		{"arn", given("Name", "acs:kms:r:1:secret/long-name"), request{Name: "acs:kms:r:1:secret/long-name"}},
		{"literal", given("Name", "$Auto"), request{Name: "$Auto"}},
		{"present and empty", given("Name", "x", "Text", ""), request{Text: &empty}},
		{"array", given("Name", "x", "VersionStages", `["a","b"]`), request{Labels: []string{"a", "b"}}},
		{"object of 2021", given("Name", "x", "VersionStages", `{"VersionStage":["a"]}`), request{Labels: []string{"a"}}},
		{"comma-separated", given("Name", "x", "TagKeys", `a,b`), request{Keys: []string{"a", "b"}}},
		{"flat, with gaps, by number", given("Name", "x", "ID.10", "b", "ID.2", "a"), request{IDs: []string{"a", "b"}}},
		{
			"flat structs", given("Name", "x", "Tag.1.Key", "k", "Tag.2.Key", "l", "Tag.1.Value", ""),
			request{Pairs: []pair{{"k", &empty}, {"l", nil}}},
		},
		{"map as JSON", given("Name", "x", "Config.Custom", `{"a":"b"}`), request{Custom: map[string]string{"a": "b"}}},
		{"map as members", given("Name", "x", "Config.Custom.a", "b"), request{Custom: map[string]string{"a": "b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := tt.want
			if want.Name == "" {
				want.Name = "x"
			}
			if want.Kind == "" {
				want.Kind = "a"
			}
			if want.Size == 0 {
				want.Size = 30
			}
			var got request
			if err := Decode(tt.in, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, opts); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	const marker = "s3cretMarker"
	for _, tt := range []struct {
		name  string
		in    sign.Params
		param string
		kind  fault.Kind
		text  string
	}{
		{"missing", given("Data", "x"), "Name", fault.Missing, ""},
		{"empty", given("Name", ""), "Name", fault.Missing, ""},
		{"missing before invalid", given("Size", "x"), "Name", fault.Missing, ""},
		{"too long", given("Name", "abcdef"), "Name", fault.Invalid, "1 to 5 characters"},
		{"characters", given("Name", "a b"), "Name", fault.Invalid, "letters, digits"},
		{"bytes", given("Name", "x", "Data", marker), "Data", fault.Invalid, "1 to 4 bytes"},
		{"text too long", given("Name", "x", "Text", "abcd"), "Text", fault.Invalid, "3 characters"},
		{"enum", given("Name", "x", "Kind", "c"), "Kind", fault.Invalid, "a, b"},
		{"enum is case sensitive", given("Name", "x", "Kind", "A"), "Kind", fault.Invalid, "a, b"},
		{"boolean", given("Name", "x", "Flag", "1"), "Flag", fault.Invalid, "true or false"},
		{"number", given("Name", "x", "Size", "7.0"), "Size", fault.Invalid, "whole number"},
		{"signed number", given("Name", "x", "Size", "+7"), "Size", fault.Invalid, "whole number"},
		{"range", given("Name", "x", "Size", "31"), "Size", fault.Invalid, "7 to 30"},
		{"not JSON", given("Name", "x", "VersionStages", marker), "VersionStages", fault.Invalid, "JSON"},
		{"trailing JSON", given("Name", "x", "VersionStages", `["a"]x`), "VersionStages", fault.Invalid, "JSON"},
		{"wrong wrapper", given("Name", "x", "VersionStages", `{"Other":["a"]}`), "VersionStages", fault.Invalid, "JSON"},
		{"item zero", given("Name", "x", "ID.0", "a"), "ID", fault.Invalid, "from 1"},
		{"item not a number", given("Name", "x", "ID.x", "a"), "ID", fault.Invalid, "from 1"},
		{"item with zeros", given("Name", "x", "ID.01", "a"), "ID", fault.Invalid, "from 1"},
		{"huge item", given("Name", "x", "ID.9999999", "a"), "ID", fault.Invalid, "from 1"},
		{"empty item", given("Name", "x", "ID.1", ""), "ID", fault.Invalid, "empty"},
		{
			"too many", given("Name", "x", "ID.1", "a", "ID.2", "a", "ID.3", "a", "ID.4", "a"), "ID", fault.Invalid,
			"0 to 3 items",
		},
		{"no key", given("Name", "x", "Tag.1.Value", "v"), "Tag", fault.Invalid, "no Key"},
		{
			"both forms", given("Name", "x", "Config.Custom", "{}", "Config.Custom.a", "b"), "Config.Custom", fault.Invalid,
			"once",
		},
		{
			"map of numbers", given("Name", "x", "Config.Custom", `{"a":1}`), "Config.Custom", fault.Invalid,
			"object of strings",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := Decode(tt.in, &request{})
			var f *fault.Error
			if !errors.As(err, &f) || f.Kind != tt.kind || f.Param != tt.param || !strings.Contains(f.Msg, tt.text) {
				t.Errorf("err = %v; want kind %d for %s that says %q", err, tt.kind, tt.param, tt.text)
			}
			if err != nil && strings.Contains(err.Error(), marker) {
				t.Errorf("the error quotes the value: %v", err)
			}
		})
	}
}

func TestEncodeDecode(t *testing.T) {
	t.Parallel()
	value, text := "v", ""
	in := request{
		Name: "x", Data: sensitive.New("abcd"), Text: &text, Kind: "b", Flag: true, Size: 8, Labels: []string{"<a>"},
		IDs: []string{"1", "2"}, Pairs: []pair{{"k", &value}, {"l", nil}}, Custom: map[string]string{"a": "b&c"},
	}
	var out request
	if err := Decode(Encode(&in), &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, opts); diff != "" {
		t.Errorf("decoded from encoded (-want +got):\n%s", diff)
	}
}

type row struct {
	ID     string   `kms:"Id"`
	Labels []string `kms:"Labels,list=Label"`
}

type response struct {
	Name  string          `kms:"Name"`
	Data  sensitive.Value `kms:"Data"`
	Count int             `kms:"Count"`
	More  bool            `kms:"More"`
	At    time.Time       `kms:"At"`
	Until time.Time       `kms:"Until,omitempty"`
	Rows  []row           `kms:"Rows,list=Row"`
	Tags  *[]row          `kms:"Tags,list=Tag,omitempty"`
	ID    string          `kms:"RequestId"`
}

func TestResponse(t *testing.T) {
	t.Parallel()
	in := response{
		Name:  "a<b>\u2028",
		Data:  sensitive.New("q\"\\\n\r\t\x01é"),
		Count: 3,
		More:  true,
		At:    time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC),
		Rows:  []row{{ID: "1", Labels: []string{"x", "y"}}, {ID: "2", Labels: []string{}}}, Tags: &[]row{},
	}
	SetRequestID(reflect.ValueOf(&in).Elem(), "r-1")
	want := `{"Name":"a<b>` + "\u2028" +
		`","Data":"q\"\\\n\r\t\u0001é","Count":3,"More":true,"At":"2026-01-02T03:04:05Z",` +
		`"Rows":{"Row":[{"Id":"1","Labels":{"Label":["x","y"]}},{"Id":"2","Labels":{"Label":[]}}]},"Tags":{"Tag":[]},` +
		`"RequestId":"r-1"}`
	got := AppendJSON(nil, &in)
	if string(got) != want {
		t.Errorf("JSON\n got %s\nwant %s", got, want)
	}
	var back response
	if err := DecodeResponse(got, &back); err != nil {
		t.Fatal(err)
	}
	in.At = in.At.Truncate(time.Second)
	if diff := cmp.Diff(in, back, opts); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if _, err := XML("R", &in); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "Format") {
		t.Errorf("a control character in XML: %v", err)
	}
	in.Data = sensitive.New("a&b")
	x, err := XML("R", &in)
	wantXML := "<?xml version='1.0' encoding='UTF-8'?>\n" +
		"<R><Name>a&lt;b&gt;\u2028</Name><Data>a&amp;b</Data><Count>3</Count><More>true</More>" +
		"<At>2026-01-02T03:04:05Z</At>" +
		"<Rows><Row><Id>1</Id><Labels><Label>x</Label><Label>y</Label></Labels></Row>" +
		"<Row><Id>2</Id><Labels></Labels></Row></Rows><Tags></Tags><RequestId>r-1</RequestId></R>"
	if err != nil || string(x) != wantXML {
		t.Errorf("XML\n got %s, %v\nwant %s", x, err, wantXML)
	}
}

func TestDecodeResponseErrors(t *testing.T) {
	t.Parallel()
	for body, text := range map[string]string{
		`[]`:                   "not a JSON object",
		`{"Count":"x"}`:        "Count",
		`{"More":"x"}`:         "More",
		`{"At":"yesterday"}`:   "At",
		`{"Rows":[]}`:          "Rows",
		`{"Rows":{"Row":[1]}}`: "Rows",
	} {
		if err := DecodeResponse([]byte(body), &response{}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("DecodeResponse(%s) = %v, want an error that says %q", body, err, text)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("Tag.1.Key", "k", "VersionStages", `["a"]`)
	f.Add("ID.1", "", "Config.Custom", `{"a":"b"}`)
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		if !utf8.ValidString(n1 + "\x00" + v1 + "\x00" + n2 + "\x00" + v2) {
			return // the door takes UTF-8 only
		}
		var r request
		if err := Decode(given("Name", "x", n1, v1, n2, v2), &r); err != nil {
			if fault.KindOf(err) == fault.Internal {
				t.Errorf("an error without a kind: %v", err)
			}
			return
		}
		var again request
		if err := Decode(Encode(&r), &again); err != nil {
			t.Fatalf("%v, as a client sends it, is refused: %v", Encode(&r), err)
		}
		if diff := cmp.Diff(r, again, opts, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("sent again it is another request (-first +second):\n%s", diff)
		}
	})
}

// FuzzDecodeResponse reads what a server may send: what is understood is the same when it is
// written and read again.
func FuzzDecodeResponse(f *testing.F) {
	f.Add(
		[]byte(
			`{"Name":"a","Data":"b","Count":3,"More":true,"At":"2026-01-02T03:04:05Z","Rows":{"Row":[{"Id":"1",` +
				`"Labels":{"Label":["x"]}}]},"Tags":{"Tag":[]},"RequestId":"r"}`))
	f.Add([]byte(`{"Count":"3","More":"true","Until":"","Rows":null,"Unknown":[1,{}]}`))
	f.Add([]byte(`{"At":"2026-01-02T11:04:05.5+08:00","Name":"\ud800"}`))
	f.Add([]byte(`{"Rows":[]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var in, back response
		if DecodeResponse(data, &in) != nil {
			return
		}
		if y := in.At.Year(); y < 0 || y > 9999 || in.Until.Year() < 0 || in.Until.Year() > 9999 {
			return
		}
		written := AppendJSON(nil, &in)
		if err := DecodeResponse(written, &back); err != nil {
			t.Fatalf("%s, written from %q, is refused: %v", written, data, err)
		}
		if again := AppendJSON(nil, &back); string(again) != string(written) {
			t.Errorf("it changes when it is read again:\n%s\n%s", written, again)
		}
	})
}

func FuzzAppendQuoted(f *testing.F) {
	f.Add("a\"\\\n\x00é\xff")
	f.Fuzz(func(t *testing.T, s string) {
		var back response
		if err := DecodeResponse(append(append([]byte(`{"Name":`), AppendQuoted(nil, s)...), '}'), &back); err != nil ||
			back.Name != strings.ToValidUTF8(s, "\ufffd") && strings.ToValidUTF8(s, "") == s {
			t.Errorf("%q came back as %q, %v", s, back.Name, err)
		}
	})
}
