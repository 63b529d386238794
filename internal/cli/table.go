package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
)

// table prints aligned columns.
type table struct {
	header []string
	rows   [][]string
}

func newTable(header ...string) *table { return &table{header: header} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// withoutEmpty leaves out the columns that are empty in each row.
func (t *table) withoutEmpty() *table {
	short := &table{}
	used := func(cells []string) (list []string) {
		for i, c := range cells {
			if slices.ContainsFunc(t.rows, func(r []string) bool { return r[i] != "" }) {
				list = append(list, c)
			}
		}
		return list
	}
	short.header = used(t.header)
	for _, r := range t.rows {
		short.row(used(r)...)
	}
	return short
}

func (t *table) write(w io.Writer) error {
	var text bytes.Buffer
	tw := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	if len(t.header) > 0 {
		fmt.Fprintln(tw, strings.Join(t.header, "\t"))
	}
	for _, r := range t.rows { // with its empty cells: a row without them would end the columns above it
		fmt.Fprintln(tw, escapedCells(r))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// escapedCells joins cells, none of which can begin a line or a column of its own.
func escapedCells(cells []string) string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = escaped(c, "")
	}
	return strings.Join(out, "\t")
}

// when shows a time of the API; nothing for none.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(wire.TimeFormat)
}

// printResponse prints a response as the API's own JSON, indented and with sorted members, as the
// official CLI does.
func printResponse(w io.Writer, response any) error {
	return printJSON(w, wire.AppendJSON(nil, response))
}

func printJSON(w io.Writer, data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		_, err := fmt.Fprintln(w, string(data)) // not JSON: as it came
		return err
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	return e.Encode(v)
}
