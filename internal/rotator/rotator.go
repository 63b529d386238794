// Package rotator runs rotations: it finds what is due, does what package rotation plans, and
// stores what came of it.
//
// One node rotates at a time. Its right is a record in the store, whose revision is the token that
// every transaction of the engine depends on; in a cluster the record ends with a lease. An engine
// that has lost the right can store nothing, and before every effect it makes sure that the right
// outlasts the effect's deadline.
//
// Everything that matters is in the store: what is due and when, what was tried and what came of
// it. A restart changes nothing; work that was cut off is found in the state that it was stored in
// before its effect.
package rotator

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/store"
)

// Config says how an engine works.
type Config struct {
	// Node names this node in the store.
	Node string
	// Workers is how many rotations are worked on at once; 0 means 16.
	Workers int
	// EffectTimeout bounds one call to a target; 0 means 15 seconds.
	EffectTimeout time.Duration
	// Lead is the delay between blocking reads of a secret with one credential and changing it. A
	// consumer that read the previous one a moment before can still log in; 0 means 100 ms.
	Lead time.Duration
	// Rate is how many scheduled rotations begin at one target in a second, and
	// Burst how many at once after a pause; 0 means DefaultRate and 10. Excess rotations get a stored
	// start time.
	Rate  float64
	Burst int
	// ProbeRate is how many credentials in use are probed in a second, in all; 0 means 10.
	ProbeRate float64
	// Receivers get the events; none means that no events are kept.
	Receivers []Receiver
	// Dial connects to receivers; nil means the dialer of [egress.Default].
	Dial egress.DialFunc
	// Region is the server's, for the source of events.
	Region string
	// Logger is for the operator.
	Logger *slog.Logger
	// At is called before and after everything that the engine stores and every call to a target; nil
	// means never. For tests, which stop the process there.
	At func(secret, point string)
	// Observe receives everything that operators watch; nil means that nothing does.
	Observe Observer
}

// Observer receives what happens. Its methods must not block.
type Observer interface {
	// Moved is called after a rotation has moved.
	Moved(e Event)
	// Leading says whether this node rotates.
	Leading(yes bool)
}

// DefaultRate is [Config.Rate] unless it is set.
const DefaultRate = 2

const (
	defaultWorkers = 16
	defaultEffect  = 15 * time.Second
	defaultLead    = 100 * time.Millisecond
	defaultBurst   = 10
	defaultProbes  = 10
	idlePoll       = 5 * time.Second // beside the watch, which may break
	leadRetry      = time.Second
	storeTimeout   = 10 * time.Second
)

// Rotator is the engine of one node.
type Rotator struct {
	config Config
	db     *store.DB
	gate   *api.Gate
	now    func() time.Time
	spread *spread // of the turns that are stored
	starts *spread // of the beginnings: turns that come late, after a pause of the engine, come together
	probes *spread
	// probing bounds the probes under way to half of the workers, and at one target to half of those:
	// a target that does not answer leaves the rest to rotations and to the probes of other targets.
	// One probe is always possible, also where that takes the only worker.
	probing *limit
}

// New returns an engine that has not begun. now is the server's clock.
func New(db *store.DB, gate *api.Gate, now func() time.Time, c Config) *Rotator {
	if c.Workers <= 0 {
		c.Workers = defaultWorkers
	}
	if c.EffectTimeout <= 0 {
		c.EffectTimeout = defaultEffect
	}
	if c.Lead <= 0 {
		c.Lead = defaultLead
	}
	if c.Rate <= 0 {
		c.Rate = DefaultRate
	}
	if c.Burst <= 0 {
		c.Burst = defaultBurst
	}
	if c.ProbeRate <= 0 {
		c.ProbeRate = defaultProbes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observe == nil {
		c.Observe = unobserved{}
	}
	return &Rotator{
		config: c,
		db:     db,
		gate:   gate,
		now:    now,
		spread: newSpread(c.Rate, c.Burst),
		starts: newSpread(c.Rate, c.Burst),
		probes: newSpread(c.ProbeRate, probeBurst(c.ProbeRate)),

		probing: newLimit(c.Workers/2, c.Workers/4), // each is a half of all
	}
}

type unobserved struct{}

func (unobserved) Moved(Event)  {}
func (unobserved) Leading(bool) {}

// Run rotates whenever this node may, until ctx ends. It returns when all that it started has
// stopped.
func (r *Rotator) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.lead(ctx); err != nil && ctx.Err() == nil {
			r.config.Logger.Warn("the rotation engine stopped; it starts again", "err", err)
		}
		sleep(ctx, leadRetry/2+rand.N(leadRetry/2))
	}
}

// lead waits for the right to rotate, and rotates for as long as it lasts.
func (r *Rotator) lead(ctx context.Context) error {
	lead, err := r.db.Lead(ctx, r.config.Node, r.now)
	if err != nil {
		return err
	}
	defer r.resign(context.WithoutCancel(ctx), lead)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.config.Observe.Leading(true)
	defer r.config.Observe.Leading(false)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-lead.Lost():
			cancel()
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel()
	engine := r.gate.Engine(lead.Token)
	if len(r.config.Receivers) > 0 {
		watch.Go(func() { newDeliverer(engine, r.config).run(ctx) })
	}
	looked := make(chan struct{})
	watch.Go(func() { r.watchRestores(ctx, engine, looked) })
	select {
	case <-looked: // otherwise the dispatcher would read records while they are made due
	case <-time.After(storeTimeout):
	case <-ctx.Done():
	}
	d := &dispatcher{
		rotator: r,
		stop:    cancel,
		engine:  engine,
		lead:    lead,
		busy:    map[store.Due]bool{},
		free:    make(chan store.Due, r.config.Workers),
	}
	return d.run(ctx)
}

// resign gives the right to rotate back, so that another node need not wait for its end.
func (r *Rotator) resign(ctx context.Context, lead *store.Lead) {
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := lead.Resign(bounded); err != nil {
		r.config.Logger.Warn("the right to rotate was not given back; it expires automatically", "err", err)
	}
}

// watchRestores looks, until ctx ends, whether a node has found that the store was restored from a
// copy. Then all credentials are checked. looked is closed after the first time.
func (r *Rotator) watchRestores(ctx context.Context, engine *api.Engine, looked chan<- struct{}) {
	first := sync.OnceFunc(func() { close(looked) })
	defer first()
	for ctx.Err() == nil {
		found, ok, err := engine.Restored(ctx)
		if err == nil && ok {
			var n int
			if n, err = engine.Doubt(ctx, found); err == nil {
				r.config.Logger.Warn(
					"the store was restored from a copy: the credentials in use are not known to work, and are checked",
					"secrets", n,
					"why", found.Why,
				)
			}
		}
		if err != nil && ctx.Err() == nil {
			r.config.Logger.Warn(
				"whether the store was restored from a copy could not be determined or stored; it is tried again",
				"err", err,
			)
		}
		first()
		sleep(ctx, idlePoll)
	}
}

// dispatcher hands what is due to workers. Its fields belong to the goroutine of run.
type dispatcher struct {
	rotator *Rotator
	stop    context.CancelFunc // when another engine has taken over
	engine  *api.Engine
	lead    *store.Lead
	busy    map[store.Due]bool
	free    chan store.Due // whose work has ended
	failed  sync.Map       // store.Due to the time.Time of a failed login that may not be stored; used by workers
}

func (d *dispatcher) run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	wakes := d.rotator.db.Wakes(watching)
	for {
		next, err := d.dispatch(ctx, &work)
		if err != nil {
			return err
		}
		wait := idlePoll
		if !next.IsZero() {
			wait = max(0, min(wait, next.Sub(d.rotator.now())))
		}
		if len(d.busy) >= d.rotator.config.Workers {
			wait = idlePoll // a worker that becomes free wakes it
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case due := <-d.free:
			delete(d.busy, due)
		case _, ok := <-wakes:
			if !ok && ctx.Err() == nil {
				sleep(ctx, leadRetry)
				wakes = d.rotator.db.Wakes(watching)
			}
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
	}
}

// dispatch starts work on what is due, as far as there are workers, and returns when to look again;
// zero when nothing is planned. It reads what is due and no more.
func (d *dispatcher) dispatch(ctx context.Context, work *sync.WaitGroup) (time.Time, error) {
	for drained := false; !drained; {
		select {
		case due := <-d.free:
			delete(d.busy, due)
		default:
			drained = true
		}
	}
	if len(d.busy) >= d.rotator.config.Workers {
		return time.Time{}, nil
	}
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	list, next, err := d.engine.Due(bounded, 2*d.rotator.config.Workers)
	if err != nil {
		if ctx.Err() != nil {
			return next, nil
		}
		return next, err
	}
	for _, due := range list {
		if d.busy[due] {
			continue
		}
		if len(d.busy) >= d.rotator.config.Workers {
			break
		}
		d.busy[due] = true
		work.Go(func() {
			defer func() { d.free <- due }()
			d.work(ctx, due)
		})
	}
	return next, nil
}

// work does all that one rotation can do now.
func (d *dispatcher) work(ctx context.Context, due store.Due) {
	w := &worker{dispatcher: d, account: due.Account, secret: due.Name}
	log := d.rotator.config.Logger.With("secret", due.Name)
	moved := 0 // in a row
	for range maxTurns {
		more, err := w.turn(ctx)
		switch {
		case ctx.Err() != nil, err == nil && !more:
			return
		case errors.Is(err, api.ErrMoved):
			// Each turn asks the target. A caller who changes again and again what a step depends on must
			// not set the pace, nor keep the workers from the rotations of others.
			if moved++; moved > maxMoved {
				w.standBack(ctx)
				return
			}
			continue
		case errors.Is(err, store.ErrFenced):
			log.Warn("another node rotates now")
			d.stop()
			return
		case err != nil:
			log.Warn("a rotation could not go on; it is tried again", "err", err)
			sleep(ctx, leadRetry/2+rand.N(leadRetry)) // or it would be found due again at once
			return
		}
		moved = 0
	}
}

// sleep waits, or less when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
