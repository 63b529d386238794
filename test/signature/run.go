package signature

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
)

// Figures are what a run has counted.
type Figures struct {
	// Mutations is how many requests were changed and sent.
	Mutations int
	// Same is how many of them were accepted and meant the same.
	Same int
	// OtherMeaning is how many were accepted and meant something else. It must be 0.
	OtherMeaning int
	// Replays is how many requests were accepted again, as they were or changed. It must be 0.
	Replays int
	// Example is one mutation that was wrongly accepted.
	Example string
}

// mostChanges is how many changes one mutation consists of at most.
const mostChanges = 3

// Run changes requests until the deadline has passed or limit mutations were tried; a limit of 0
// is none. The mutations follow from the seed. newAuth makes the authenticator under test.
func Run(
	seed uint64,
	limit int,
	deadline time.Time,
	newAuth func(now func() time.Time) rpc.Authenticator,
) (f Figures, err error) {
	tested := Start(newAuth(time.Now), time.Now)
	reference := Start(auth.New(Config(time.Now)), time.Now)
	defer func() { err = errors.Join(err, tested.Close(), reference.Close()) }()
	random := rand.New(rand.NewPCG(seed, 0))
	all := seeds()
	for (limit == 0 || f.Mutations < limit) && time.Now().Before(deadline) {
		s := all[random.IntN(len(all))]
		nonce := fmt.Sprintf("%d-%d", seed, f.Mutations)
		var did []string
		mutate := func(m message) message {
			m = m.clone()
			did = did[:0]
			for range 1 + random.IntN(mostChanges) {
				if len(m.headers) == 0 {
					break
				}
				c := changes[random.IntN(len(changes))]
				c.do(random, &m)
				did = append(did, c.name)
			}
			return m
		}
		original := s.build(nonce, time.Now())
		if err := f.try(tested, reference, original, mutate(original)); err != nil {
			return f, fmt.Errorf("%s, %v: %w", s.name, did, err)
		}
		if f.Example != "" {
			f.Example = fmt.Sprintf("%s, %v: %s", s.name, did, f.Example)
			return f, nil
		}
	}
	return f, nil
}

// try sends a mutant before and after its original. The original counts as used up once either
// was accepted.
func (f *Figures) try(tested, reference *Server, original, mutant message) error {
	want, err := reference.send(original)
	if err != nil {
		return err
	}
	if want == "" {
		return fmt.Errorf("the original %q is refused", original.http1())
	}
	f.Mutations++
	accepted := 0
	for i, m := range []message{mutant, original, mutant, original} {
		got, err := tested.send(m)
		switch {
		case err != nil:
			return err
		case got == "":
			continue
		case got != want:
			f.OtherMeaning++
			f.Example = fmt.Sprintf("%q means %s; its original %s", m.http1(), got, want)
		}
		accepted++
		if i == 0 && got == want {
			f.Same++
		}
	}
	switch {
	case accepted > 1:
		f.Replays++
		f.Example = fmt.Sprintf("%q and %q: %d were accepted", original.http1(), mutant.http1(), accepted)
	case accepted == 0:
		return fmt.Errorf("after %q its original %q is refused", mutant.http1(), original.http1())
	}
	return nil
}
