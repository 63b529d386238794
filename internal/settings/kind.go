package settings

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// form is how a value is written in the file.
type form string

const (
	formText   form = "text"
	formSwitch form = "true or false"
	formWhole  form = "a whole number"
	formNumber form = "a number"
	formList   form = "a list"
)

// must completes the sentence "NAME must be …", to which the value that was given is added.
type must string

func (m must) Error() string { return "must be " + string(m) }

// Kind describes the values that a setting of type T may have.
type Kind[T any] struct {
	placeholder string
	bounds      string
	form        form
	lines       bool // items of a list may hold commas
	parse       func(texts []string) (T, error)
	show        func(T) string
	unset       func(T) bool
	negative    func(T) bool // nil for kinds without negative values
}

// one returns a kind with a single value.
func one[T comparable](placeholder string, f form, parse func(string) (T, error), show func(T) string) Kind[T] {
	return Kind[T]{
		placeholder: placeholder,
		form:        f,
		parse:       func(texts []string) (T, error) { return parse(texts[len(texts)-1]) },
		show:        show,
		unset:       func(v T) bool { return v == *new(T) },
	}
}

// bounded adds a condition to a kind with a single value.
func (k Kind[T]) bounded(bounds string, sentence must, ok func(T) bool) Kind[T] {
	parse := k.parse
	k.bounds = bounds
	k.parse = func(texts []string) (T, error) {
		v, err := parse(texts)
		if err != nil || !ok(v) {
			return v, sentence
		}
		return v, nil
	}
	return k
}

// Text is any text.
func Text(placeholder string) Kind[string] {
	return one(placeholder, formText,
		func(s string) (string, error) { return s, nil },
		func(s string) string {
			if s == "" {
				return "none"
			}
			return s
		})
}

// OneOf is one of some words.
func OneOf(placeholder string, words ...string) Kind[string] {
	list := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	return Text(placeholder).bounded(list, must(list), func(s string) bool { return slices.Contains(words, s) })
}

// Level is a level of the log.
func Level() Kind[slog.Level] {
	const levels = "debug, info, warn or error"
	parse := func(s string) (l slog.Level, err error) { return l, l.UnmarshalText([]byte(s)) }
	show := func(l slog.Level) string { return strings.ToLower(l.String()) }
	return one("LEVEL", formText, parse, show).bounded(levels, levels, func(slog.Level) bool { return true })
}

// Switch is true or false.
func Switch() Kind[bool] { return switching(false) }

// Inverted is a switch whose field has the opposite meaning.
func Inverted() Kind[bool] { return switching(true) }

func switching(inverted bool) Kind[bool] {
	parse := func(s string) (bool, error) {
		v, err := strconv.ParseBool(s)
		switch {
		case s == "yes" || s == "no":
			v = s == "yes"
		case err != nil:
			return false, must(formSwitch)
		}
		return v != inverted, nil
	}
	return one("", formSwitch, parse, func(v bool) string { return strconv.FormatBool(v != inverted) })
}

const noLimit = 1 << 40 // of whole numbers: as MiB, still within 64 bits

// Whole is a whole number of at least least.
func Whole(least int) Kind[int] {
	bounds := fmt.Sprintf("at least %d", least)
	if least == 0 {
		bounds = "" // a number is not negative
	}
	return positive(one("N", formWhole, strconv.Atoi, shownNumber[int]), 0).
		bounded(bounds, whole(least), func(n int) bool { return n >= least && n <= noLimit })
}

func whole(least int) must { return must(fmt.Sprintf("%s of at least %d", formWhole, least)) }

func shownNumber[T int | float64](n T) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// positive declares that a field may hold no value below least, whichever way it was set.
func positive[T int | int64 | float64 | time.Duration](k Kind[T], least T) Kind[T] {
	k.negative = func(v T) bool { return v < least }
	return k
}

// OrOff is a whole number of which 0 switches something off, which the field says with -1: its zero
// value means the default.
func OrOff() Kind[int] {
	k := positive(Whole(0), -1)
	parse := k.parse
	k.bounds = "0 disables the check"
	k.parse = func(texts []string) (int, error) {
		n, err := parse(texts)
		if n == 0 {
			n = -1
		}
		return n, err
	}
	return k
}

// MiB is a number of MiB of at least least, which the field holds in bytes.
func MiB(least int) Kind[int64] {
	k := Whole(least)
	return positive(Kind[int64]{
		placeholder: k.placeholder,
		bounds:      k.bounds,
		form:        k.form,
		parse: func(texts []string) (int64, error) {
			n, err := k.parse(texts)
			return int64(n) << 20, err
		},
		show:  func(n int64) string { return k.show(int(n >> 20)) },
		unset: func(n int64) bool { return n == 0 },
	}, 0)
}

// Number is a number of least to most.
func Number(least, most float64) Kind[float64] {
	parse := func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }
	k := positive(one("N", formNumber, parse, shownNumber[float64]), 0)
	if math.IsInf(most, 1) {
		return k.bounded("", must(fmt.Sprintf("a number of at least %g", least)), func(n float64) bool { return n >= least })
	}
	bounds := fmt.Sprintf("%g to %g", least, most)
	return k.bounded(bounds, must("a number of "+bounds), func(n float64) bool { return n >= least && n <= most })
}

// Duration is a duration of least to most.
func Duration(least, most time.Duration) Kind[time.Duration] {
	bounds := showDuration(least) + " to " + showDuration(most)
	sentence := must("a duration of " + bounds)
	return positive(one("DURATION", formText, time.ParseDuration, showDuration), 0).
		bounded(bounds, sentence, func(d time.Duration) bool { return d >= least && d <= most })
}

// AtLeast is a duration of at least least; an empty text means none.
func AtLeast(least time.Duration) Kind[time.Duration] {
	bounds := "at least " + showDuration(least)
	parse := func(s string) (time.Duration, error) {
		if s == "" {
			return 0, nil
		}
		return time.ParseDuration(s)
	}
	sentence := must("a duration of " + bounds)
	return positive(one("DURATION", formText, parse, showDuration), 0).
		bounded(bounds, sentence, func(d time.Duration) bool { return d == 0 || d >= least })
}

func showDuration(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return ShortDuration(d)
}

// ShortDuration returns a duration as a setting takes it, without units that are zero at its end.
func ShortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// List is texts, separated by commas on the command line and in the environment.
func List(placeholder string) Kind[[]string] {
	return Parsed(placeholder, func(texts []string) ([]string, error) { return texts, nil })
}

// Lines is texts that may hold commas. Each is a flag of its own.
func Lines(placeholder string) Kind[[]string] {
	k := List(placeholder)
	k.lines = true
	return k
}

// Parsed is a list that parse turns into a T.
func Parsed[T any, L ~[]T](placeholder string, parse func(texts []string) (L, error)) Kind[L] {
	return Kind[L]{
		placeholder: placeholder,
		form:        formList,
		parse:       parse,
		show:        func(L) string { return "none" },
		unset:       func(v L) bool { return len(v) == 0 },
	}
}

// ID is the number of a user or a group of the operating system, which the field holds in a list:
// none is set if the list is empty.
func ID(placeholder string) Kind[[]int] {
	k := Parsed(placeholder, func(texts []string) ([]int, error) {
		n, err := strconv.Atoi(texts[len(texts)-1])
		if err != nil {
			return nil, must(formWhole)
		}
		return []int{n}, nil
	})
	k.form = formWhole
	return k
}
