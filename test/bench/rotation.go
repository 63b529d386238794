package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	scheduled      = 10_000
	rotationsTimed = 60
	looks          = 2_000
	maxQueue       = 1.5 // the look for what is due, with 10,000 scheduled rotations to with 10
	maxOverhead    = 250 * time.Millisecond
)

// instant is a target that accepts everything at once, so that what is measured is Keyturn's own.
type instant struct{}

func (instant) Apply(context.Context, target.Change) error      { return nil }
func (instant) Retire(context.Context, target.Change) error     { return nil }
func (instant) Verify(context.Context, target.Credential) error { return nil }
func (instant) Close() error                                    { return nil }

// rotations measures what a rotation costs beside its target's work, and what 10,000 secrets cost
// that are not due: two servers rotate in turns, one of which has those.
func rotations() error {
	var stored atomic.Int64
	few, stopFew, err := rotating(&stored)
	if err != nil {
		return err
	}
	many, stopMany, err := rotating(nil)
	if err == nil {
		err = compareRotations(few, many, &stored)
		err = errors.Join(err, stopMany())
	}
	return errors.Join(err, stopFew())
}

// rotating starts a server with an instant target. stored counts what its engine stores.
func rotating(stored *atomic.Int64) (s *subject, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return nil, nil, err
	}
	kind := target.Kind{
		Name: "instant", Strategies: []target.Strategy{target.Overlap}, Check: func(json.RawMessage) error { return nil },
		Open: func(target.Settings) (target.Target, error) { return instant{}, nil },
	}
	c := server.Config{
		DataDir:    dir,
		Listen:     "127.0.0.1:0",
		ListenHTTP: "127.0.0.1:0",
		Kinds:      []target.Kind{kind},
		Rotator:    rotator.Config{ProbeRate: 100_000},
		Rotation:   api.RotationConfig{RequestEvery: time.Microsecond},
	}
	if stored != nil {
		c.Rotator.At = func(_, point string) {
			if strings.HasPrefix(point, "after storing") {
				stored.Add(1)
			}
		}
	}
	node, err := server.New(context.Background(), c)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	<-node.Ready()
	stop = func() error {
		cancel()
		return errors.Join(<-done, os.RemoveAll(dir))
	}
	err = prepared(node, func(ready *subject) error { s = ready; return nil })
	if err == nil {
		_, err = s.client.RegisterTarget(ctx, &kms.RegisterTargetRequest{TargetName: "t", Kind: "instant", Config: "{}"})
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return s, stop, nil
}

func compareRotations(few, many *subject, stored *atomic.Int64) error {
	if err := errors.Join(few.schedule(0, 10), many.schedule(0, scheduled)); err != nil {
		return err
	}
	idle, err := settledUse()
	if err != nil {
		return err
	}
	var alone, among []time.Duration
	before := stored.Load()
	for i := range rotationsTimed {
		for _, turn := range []struct {
			s    *subject
			took *[]time.Duration
		}{{few, &alone}, {many, &among}} {
			took, err := turn.s.rotate(fmt.Sprint("r", i))
			if err != nil {
				return err
			}
			*turn.took = append(*turn.took, took)
		}
	}
	writes := float64(stored.Load()-before)/rotationsTimed + 1 // RotateSecret's own
	one := median(alone)
	queue := float64(median(among)) / float64(one)
	figure("rotation_overhead_ms", milliseconds(one))
	figure("rotation_store_writes", writes)
	figure("rotation_10000_scheduled_to_10", queue)
	figure("rotation_idle_cpu_percent_10000_scheduled", idle)
	if one > maxOverhead {
		err = errors.Join(err, fmt.Errorf("a rotation takes %v beside its target's work, more than %v", one, maxOverhead))
	}
	return errors.Join(err, dueQueue())
}

// dueQueue compares the look for what is due in a store with 10 scheduled rotations and in one
// with 10,000, in turns.
func dueQueue() error {
	few, closeFew, err := queueOf(10)
	if err != nil {
		return err
	}
	many, closeMany, err := queueOf(scheduled)
	if err != nil {
		return errors.Join(err, closeFew())
	}
	var alone, among []time.Duration
	for range looks {
		for _, turn := range []struct {
			db   *store.DB
			took *[]time.Duration
		}{{few, &alone}, {many, &among}} {
			began := time.Now()
			due, _, lookErr := store.Snapshot(context.Background(), turn.db).WakeBefore(time.Now(), 32)
			if lookErr != nil || len(due) > 0 {
				return errors.Join(lookErr, fmt.Errorf("%d rotations are due, want none", len(due)), closeFew(), closeMany())
			}
			*turn.took = append(*turn.took, time.Since(began))
		}
	}
	ratio := float64(median(among)) / float64(median(alone))
	figure("due_look_among_10000_to_10", ratio)
	if ratio > maxQueue {
		err = errors.Join(err, fmt.Errorf("the look for what is due takes %.2f times as long with %d scheduled rotations "+
			"as with 10, more than %v", ratio, scheduled, maxQueue))
	}
	return errors.Join(err, closeFew(), closeMany())
}

// queueOf is a store with so many rotations that are due in a year.
func queueOf(n int) (*store.DB, func() error, error) {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return nil, nil, err
	}
	db, err := store.Open(context.Background(), store.Config{Dir: dir, NoSync: true})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop := func() error { return errors.Join(db.Close(), os.RemoveAll(dir)) }
	key, err := root.New(make([]byte, 32), "bench")
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	records, _, err := envelope.New(key).NewRecords()
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	db.Authenticate(records)
	for i := range n {
		err := store.Do(context.Background(), db, func(tx *store.Tx) error {
			name := fmt.Sprint("s", i)
			_, _, err := tx.Rotation("1", name)
			if err != nil {
				return err
			}
			return tx.PutRotation(&rotation.Record{
				Account: "1",
				Secret:  name,
				State:   rotation.Idle,
				Due:     time.Now().AddDate(1, 0, 0),
			})
		})
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
	}
	return db, stop, nil
}

// settledUse waits until the first look at every credential is over, and returns how much of a
// processor this process then takes while nothing is due.
func settledUse() (percent float64, err error) {
	const span, enough, limit = 3 * time.Second, 5, 3 * time.Minute
	for began := time.Now(); time.Since(began) < limit; {
		before, _ := usage()
		time.Sleep(span)
		after, _ := usage()
		if percent = 100 * float64(after-before) / float64(span); percent < enough {
			return percent, nil
		}
	}
	return percent, fmt.Errorf("with %d scheduled secrets and nothing due the process still takes %.0f %% of a "+
		"processor after %v", scheduled, percent, limit)
}

// schedule makes secrets that are rotated once a year.
func (s *subject) schedule(from, to int) error {
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	errs := make([]error, connections)
	for w := range connections {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(to) && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = s.scheduleOne(fmt.Sprintf("rotated/%06d", i), fmt.Sprintf("user%d", i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *subject) scheduleOne(secret, user string) error {
	ctx := context.Background()
	_, err := s.client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: secret,
		VersionID:  "v1",
		SecretData: sensitive.New(fmt.Sprintf(`{"AccountName":%q,"AccountPassword":"first"}`, user)),
	})
	if err != nil {
		return err
	}
	_, err = s.client.ConfigureRotation(ctx, &kms.ConfigureRotationRequest{
		SecretName: secret, TargetName: "t", RotationInterval: "365d", GracePeriod: "0s",
	})
	return err
}

// rotate rotates one secret, and returns the time from the call to its end.
func (s *subject) rotate(id string) (time.Duration, error) {
	ctx := context.Background()
	began := time.Now()
	if _, err := s.client.RotateSecret(ctx, &kms.RotateSecretRequest{
		SecretName: "rotated/000000",
		VersionID:  id,
	}); err != nil {
		return 0, err
	}
	for {
		r, err := s.client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: "rotated/000000"})
		switch {
		case err != nil:
			return 0, err
		case r.RotationID == id && r.State == "done":
			return time.Since(began), nil
		case time.Since(began) > time.Minute:
			return 0, fmt.Errorf("a rotation did not end: %s (%s)", r.State, r.Reason)
		}
	}
}
