package settings

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
)

// Sources are where settings are given. A flag wins over a variable, a variable over the file.
type Sources struct {
	// Flags are the texts that were given for each setting on the command line.
	Flags map[string][]string
	// Environ has the form of [os.Environ].
	Environ []string
	// Foreign reports whether a variable that begins with the prefix is not a setting.
	Foreign func(variable string) bool
	// File returns the path of the file, empty for none, after flags and variables were read. It must
	// refuse a file that others may have written.
	File func() (string, error)
}

// Prefix begins the name of every variable.
const Prefix = "KEYTURN_"

// Variable returns the variable of the environment for a setting.
func Variable(name string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Load reads all sources into the fields of the table. It reports every mistake at once: unknown
// names, values that are not permitted, and settings without the one that they are for.
func (t Table) Load(from Sources) error {
	for _, s := range t {
		s.texts = nil
		if s.literal {
			s.preset()
		}
	}
	errs := t.flags(from.Flags)
	errs = append(errs, t.environ(from)...)
	path, err := from.File()
	errs = append(errs, err)
	if path != "" {
		errs = append(errs, t.file(path)...)
	}
	for _, s := range t {
		if s.of != "" && strings.Join(s.texts, "") != "" && strings.Join(t.Find(s.of).texts, "") == "" {
			errs = append(errs, fmt.Errorf("%s is for %s, which is not set", s.Name, s.of))
		}
	}
	return errors.Join(errs...)
}

// give sets a setting that no source of a higher rank has set. where names the source in errors.
func (s *Setting) give(where string, texts []string) error {
	apply, err := s.parse(texts)
	var m must
	switch {
	case errors.As(err, &m) && !s.secret && s.form != formList:
		return fmt.Errorf("%s %w, not %q", where, err, texts[len(texts)-1])
	case errors.As(err, &m):
		return fmt.Errorf("%s %w", where, err)
	case err != nil:
		return each(where, err)
	}
	if s.texts == nil {
		s.texts = texts
		apply()
	}
	return nil
}

// each puts where before every error of a joined one.
func each(where string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", where, err)
	}
	var errs []error
	for _, err := range joined.Unwrap() {
		errs = append(errs, fmt.Errorf("%s: %w", where, err))
	}
	return errors.Join(errs...)
}

func (t Table) flags(given map[string][]string) (errs []error) {
	for _, s := range t { // in the order of the table, so that errors have one
		if texts, ok := given[s.Name]; ok {
			errs = append(errs, s.give("--"+s.Name, texts))
		}
		if _, ok := given[s.Former]; ok && s.Former != "" {
			errs = append(errs, fmt.Errorf("--%s is now --%s", s.Former, s.Name))
		}
	}
	return errs
}

// environ reads variables. An empty one counts as not set.
func (t Table) environ(from Sources) (errs []error) {
	for _, pair := range from.Environ {
		variable, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(variable, Prefix) || text == "" {
			continue
		}
		i := slices.IndexFunc(t, func(s *Setting) bool { return Variable(s.Name) == variable })
		switch {
		case i >= 0:
			texts := []string{text}
			if t[i].form == formList {
				texts = strings.Split(text, ",")
			}
			errs = append(errs, t[i].give("environment variable "+variable, texts))
		case !from.Foreign(variable):
			errs = append(errs, fmt.Errorf("unknown environment variable %s%s", variable, t.suggest(variable, Variable)))
		}
	}
	return errs
}

// file reads the YAML file. A value must have the type of its setting.
func (t Table) file(path string) (errs []error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return []error{fmt.Errorf("configuration file %s: %w", path, err)}
	}
	values, err := yaml.Parser().Unmarshal(data)
	if err != nil {
		return []error{fmt.Errorf("configuration file %s: %w", path, notYAML(err))}
	}
	where := func(name string) string { return fmt.Sprintf("configuration file %s: %s", path, name) }
	for _, s := range t {
		value, ok := values[s.Name]
		if !ok || s.noFile {
			continue
		}
		delete(values, s.Name)
		texts, is := written(value)
		if want := s.form; is != want && !(want == formNumber && is == formWhole) {
			errs = append(errs, fmt.Errorf("%s must be %s", where(s.Name), want))
			continue
		}
		errs = append(errs, s.give(where(s.Name), texts))
	}
	for name := range values {
		errs = append(errs, fmt.Errorf("configuration file %s: unknown setting %s%s", path, named(name),
			t.suggest(name, func(name string) string { return name })))
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errs
}

// notYAML returns where a file is no YAML of settings, without the library's words: they quote the
// file, which may hold a secret.
func notYAML(err error) error {
	if line := regexp.MustCompile(`line \d+`).FindString(err.Error()); line != "" {
		return fmt.Errorf("%s is not of the form name: value", line)
	}
	return errors.New("its lines must have the form name: value")
}

// named returns the name of an unknown setting as an error may quote it: text that is no name may
// be a value in the wrong place.
func named(name string) string {
	if regexp.MustCompile(`^[a-z0-9_-]{1,40}$`).MatchString(name) {
		return strconv.Quote(name)
	}
	return "whose name is not of the form some-name"
}

// written returns a value of the file as texts, and its form.
func written(value any) ([]string, form) {
	switch v := value.(type) {
	case nil:
		return []string{""}, formText
	case bool:
		return []string{fmt.Sprint(v)}, formSwitch
	case int, int64, uint64:
		return []string{fmt.Sprint(v)}, formWhole
	case float64:
		return []string{fmt.Sprint(v)}, formNumber
	case []any:
		texts := []string{}
		for _, item := range v {
			texts = append(texts, fmt.Sprint(item))
		}
		return texts, formList
	case string:
		return []string{v}, formText
	}
	return nil, "a table"
}

// suggest returns the present name of a setting that had the given one, or the name that was
// probably meant, if one is near.
func (t Table) suggest(given string, spelled func(string) string) string {
	best, least := "", 4 // edits
	for _, s := range t {
		if s.Former != "" && given == spelled(s.Former) {
			return "; it is now " + spelled(s.Name)
		}
		if n := Distance(given, spelled(s.Name)); n < least && !s.Hidden {
			best, least = spelled(s.Name), n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// Distance counts the characters to insert, remove or replace between two texts.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := before
			if a[i] != b[j] {
				replace++
			}
			before = row[j+1]
			row[j+1] = min(replace, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}
