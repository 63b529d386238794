package rotator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// Receiver is an endpoint that receives events.
type Receiver struct {
	// URL takes a POST for each event: https, or http on loopback.
	URL string
	// Key signs the requests, see package sign.
	Key sensitive.Value
}

// id names the receiver in the store, where the URL itself may not be: it may hold a token.
func (r Receiver) id() string {
	sum := sha256.Sum256([]byte(r.URL))
	return hex.EncodeToString(sum[:8])
}

// origin is what the trail says of the receiver: the rest of its URL may hold a token.
func (r Receiver) origin() string {
	u, err := url.Parse(r.URL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

const (
	deliverEvery   = time.Second
	deliverAtOnce  = 8
	deliverTimeout = 10 * time.Second
	deliverFor     = 72 * time.Hour
	maxAnswer      = 64 << 10
)

// cloudEvent is an event in the structured JSON form of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            eventData `json:"data"`
}

type eventData struct {
	Secret   string `json:"secret"`
	Target   string `json:"target,omitempty"`
	Rotation string `json:"rotation,omitempty"`
	Trigger  string `json:"trigger,omitempty"`
	State    string `json:"state,omitempty"`
	Version  string `json:"version,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// deliverer sends events to receivers, each at least once. The store has the events that are left.
type deliverer struct {
	engine    *api.Engine
	receivers []Receiver
	source    string
	client    *http.Client
	config    Config
}

func newDeliverer(engine *api.Engine, c Config) *deliverer {
	dial := c.Dial
	if dial == nil {
		dial = egress.Default.DialContext
	}
	return &deliverer{
		engine: engine, receivers: c.Receivers, source: "/keyturn/" + c.Region, config: c,
		client: &http.Client{
			Timeout:       deliverTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            dial,
				ForceAttemptHTTP2:      true,
				TLSHandshakeTimeout:    deliverTimeout,
				IdleConnTimeout:        90 * time.Second,
				MaxIdleConns:           2 * deliverAtOnce,
				MaxResponseHeaderBytes: maxAnswer,
			},
		},
	}
}

func (d *deliverer) run(ctx context.Context) {
	defer d.client.CloseIdleConnections()
	for ctx.Err() == nil {
		events, err := d.engine.Events(ctx, 4*deliverAtOnce)
		if err != nil && ctx.Err() == nil {
			d.config.Logger.Warn("events could not be read; they are delivered later", "err", err)
		}
		d.deliverAll(ctx, events)
		if len(events) == 0 || err != nil {
			sleep(ctx, deliverEvery)
		}
	}
}

func (d *deliverer) deliverAll(ctx context.Context, events []store.Event) {
	var work sync.WaitGroup
	slots := make(chan struct{}, deliverAtOnce)
	for _, e := range events {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if err := d.deliver(ctx, e); err != nil && ctx.Err() == nil {
				d.config.Logger.Warn(
					"the delivery of an event could not be stored; it may be delivered twice",
					"type", e.Type,
					"err", err,
				)
				sleep(ctx, deliverEvery)
			}
		})
	}
	work.Wait()
}

// deliver sends an event to the receivers that do not have it yet, and stores the result.
func (d *deliverer) deliver(ctx context.Context, e store.Event) error {
	after := e
	var failure error
	after.Done, failure = d.send(ctx, e)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	now := d.engine.Now()
	switch {
	case failure == nil:
		return d.engine.Delivered(ctx, e, nil)
	case now.Sub(e.Time) > deliverFor:
		d.config.Logger.Error(
			"an event was not delivered in three days and is given up",
			"type", e.Type,
			"secret", e.Secret,
			"err", failure,
		)
		return d.engine.Delivered(ctx, e, nil)
	}
	after.Failures++
	pause := rotation.Backoff(after.Failures)
	after.NextAt = now.Add(pause/2 + rand.N(pause/2+1))
	d.config.Logger.Warn(
		"an event was not delivered; it is tried again",
		"type", e.Type,
		"secret", e.Secret,
		"failures", after.Failures,
		"err", failure,
	)
	return d.engine.Delivered(ctx, e, &after)
}

// send sends an event to the receivers that do not have it yet. It returns the receivers that have
// it now, and the last failure.
func (d *deliverer) send(ctx context.Context, e store.Event) (done []string, failure error) {
	done = slices.Clone(e.Done)
	for _, r := range d.receivers {
		if slices.Contains(e.Done, r.id()) {
			continue
		}
		err := d.engine.Delivering(ctx, e, r.origin())
		if err == nil {
			err = d.post(ctx, r, e)
		}
		if err != nil {
			failure = err
			continue
		}
		done = append(done, r.id())
	}
	return done, failure
}

func (d *deliverer) cloudEvent(e store.Event) cloudEvent {
	return cloudEvent{
		SpecVersion:     "1.0",
		ID:              e.ID,
		Source:          d.source,
		Type:            e.Type,
		Subject:         e.Secret,
		Time:            e.Time.UTC(),
		DataContentType: "application/json",
		Data: eventData{
			Secret:   e.Secret,
			Target:   e.Target,
			Rotation: e.Rotation,
			Trigger:  e.Trigger,
			State:    e.State,
			Version:  e.Version,
			Reason:   e.Reason,
		},
	}
}

// post sends one event. Every answer of 200 to 299 says that it has arrived. An error names no URL:
// it may hold a token.
func (d *deliverer) post(ctx context.Context, r Receiver, e store.Event) error {
	body, err := json.Marshal(d.cloudEvent(e))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the receiver's URL is not well formed")
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "keyturn")
	if !r.Key.IsZero() {
		if err := sign.SignWebhookRequest(req, r.Key.Reveal(), time.Now(), body); err != nil {
			return err
		}
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("receiver %s: no answer", req.URL.Host)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be used again
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("receiver %s: status %d", req.URL.Host, resp.StatusCode)
	}
	return nil
}
