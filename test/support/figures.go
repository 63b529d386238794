package support

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// Figures are what the tests of a package count or measure, by name. The zero value is empty and
// ready.
type Figures struct {
	mu     sync.Mutex
	values map[string]float64 // guarded by mu
}

// Count adds n to a figure. A figure that stays 0 is printed too, once it was named.
func (f *Figures) Count(name string, n int) {
	f.change(name, func(was float64) float64 { return was + float64(n) })
}

// Most raises a figure to n if it is less.
func (f *Figures) Most(name string, n int) {
	f.change(name, func(was float64) float64 { return max(was, float64(n)) })
}

// Set sets a figure.
func (f *Figures) Set(name string, value float64) {
	f.change(name, func(float64) float64 { return value })
}

func (f *Figures) change(name string, to func(was float64) float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.values == nil {
		f.values = map[string]float64{}
	}
	f.values[name] = to(f.values[name])
}

// Run runs the tests. With full it prints the figures to standard output, one a line, and nothing
// else: the rest goes to standard error. A TestMain exits with what it returns.
func (f *Figures) Run(m *testing.M, full *bool) int {
	flag.Parse()
	stdout := os.Stdout
	if *full {
		os.Stdout = os.Stderr
	}
	code := m.Run()
	if *full {
		f.print(stdout)
	}
	return code
}

// RunMany lets more tests run at the same time than there are processors, unless -parallel says how
// many: these wait for other processes, and for times to pass, more than they compute. The faster
// cut runs under the race detector, where they compute more. It is called before [Figures.Run].
func RunMany(full *bool) {
	flag.Parse()
	number := "4"
	if *full {
		number = "8"
	}
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(number) // it is a number
	}
}

func (f *Figures) print(w io.Writer) {
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		value := f.values[name]
		text := strconv.FormatFloat(value, 'g', 4, 64)
		if value == float64(int64(value)) {
			text = strconv.FormatInt(int64(value), 10) // a count has all its digits
		}
		fmt.Fprintln(w, name, text)
	}
}
