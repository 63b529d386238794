package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/store"
)

const (
	// headEvery is how often the head of the trail is stored while records are written. An attacker
	// who waits for a crash can remove the records of at most that time unseen.
	headEvery   = 10 * time.Second
	headTimeout = 5 * time.Second
	// maxHeadAge is how old the stored head may be for a read to be answered: its record could be cut
	// off unseen.
	maxHeadAge = 2 * time.Minute

	diskEvery  = 30 * time.Second
	drainEvery = 20 * time.Millisecond
	drainFor   = 3 * time.Second

	nodeIDName = "node-id"
	aloneNode  = "local"
)

// Operations that the server itself records.
const (
	opStart    = "server.start"
	opStop     = "server.stop"
	opRestored = "store.restored"
)

// trailNode names this node's trail in the store. It does not change for as long as the data
// directory is the same. known reports that a trail of that name must already exist.
func (s *Server) trailNode() (node string, known bool, err error) {
	switch {
	case s.config.Cluster != nil:
		return s.config.Cluster.Name, false, nil
	case len(s.config.Etcd.Endpoints) == 0:
		return aloneNode, true, nil
	}
	data, err := os.ReadFile(filepath.Join(s.config.DataDir, nodeIDName))
	if errors.Is(err, fs.ErrNotExist) {
		return uuid.NewString(), false, nil
	}
	if err != nil {
		return "", false, err
	}
	id, err := uuid.Parse(strings.TrimSpace(string(data)))
	if err != nil {
		return "", false, fmt.Errorf("%s in %s does not hold a UUID", nodeIDName, s.config.DataDir)
	}
	return id.String(), true, nil
}

// nameTrail writes the name of a trail to its file, after the store has it.
func (s *Server) nameTrail(known bool) error {
	if known || len(s.config.Etcd.Endpoints) == 0 {
		return nil
	}
	return root.WriteFile(filepath.Join(s.config.DataDir, nodeIDName), []byte(s.heads.node+"\n"))
}

// resumeTrail compares the trail with what the store knows of it, and makes it ready to continue.
func (s *Server) resumeTrail(ctx context.Context) error {
	node, known, err := s.trailNode()
	if err != nil {
		return fmt.Errorf("name of the audit trail: %w", err)
	}
	s.heads.node = node
	sealed, head, err := s.trailState(ctx, node)
	if err != nil {
		return err
	}
	key, err := s.keyring.OpenTrailKey(sealed.key, node)
	if err != nil {
		return err
	}
	a := audit.Anchor{
		Node:     node,
		Key:      audit.NewKey(key),
		Head:     head,
		Expected: known && !sealed.fresh,
		Strict:   s.config.AuditStrict,
	}
	if err := s.trail.Resume(&a); err != nil {
		return err
	}
	if err := s.resumeRun(ctx); err != nil {
		return err
	}
	if err := s.keepHead(ctx); err != nil {
		return fmt.Errorf("store the head of the audit trail: %w", err)
	}
	for _, sink := range s.config.AuditSinks { // the store has the positions: the files are not needed again
		if err := s.trail.RemoveOldPosition(sink.Name()); err != nil {
			s.config.Logger.Warn("the file with the earlier position of an audit sink could not be removed", "sink", sink.Name(),
				"err", err)
		}
	}
	return s.nameTrail(known)
}

// resumeRun reads the positions of the sinks. On the first start with a release that stores them,
// it takes over the positions that earlier releases kept in files, if the trail has records at
// them.
func (s *Server) resumeRun(ctx context.Context) error {
	run, found, err := store.Snapshot(ctx, s.db).TrailRun(s.heads.node)
	if err != nil {
		return err
	}
	if !found {
		run = store.TrailRun{Node: s.heads.node, Sinks: map[string]uint64{}}
	}
	for _, sink := range s.config.AuditSinks {
		name := sink.Name()
		if !found {
			seq, err := s.trail.OldPosition(name)
			if err != nil {
				s.config.Logger.Error(
					"the file with the earlier position of an audit sink is not used: the whole trail is sent again",
					"sink", name, "err", err)
			}
			run.Sinks[name] = seq
		}
		s.sinks = append(s.sinks, s.trail.Forward(sink, run.Sinks[name]))
	}
	s.heads.run, s.heads.unfinished = run, run.Running
	if run.Running {
		s.config.Logger.Error("the last run did not store the head of the audit trail at its end, because it crashed, the "+
			"store refused it, or the store was restored from a copy: "+
			"records behind the stored head may have been cut off unseen", "node", run.Node)
	}
	return nil
}

// positions returns the last record that each sink has. A sink that is not configured now keeps its
// position.
func (s *Server) positions() map[string]uint64 {
	all := map[string]uint64{}
	maps.Copy(all, s.heads.run.Sinks)
	for _, f := range s.sinks {
		all[f.Name()] = f.Taken()
	}
	return all
}

// trailKey is the sealed key of the trails; fresh reports that this start has created it.
type trailKey struct {
	key   []byte
	fresh bool
}

// trailState reads the key and the head of the trail. On the first start with a release that has
// them, it creates the key and stores the current head with it, so that the store of a single node
// has both or neither.
func (s *Server) trailState(ctx context.Context, node string) (trailKey, *audit.Head, error) {
	snapshot := store.Snapshot(ctx, s.db)
	meta, _, err := snapshot.Meta()
	if err != nil {
		return trailKey{}, nil, err
	}
	if len(meta.TrailKey) > 0 {
		h, ok, err := snapshot.TrailHead(node)
		if err != nil || !ok {
			return trailKey{key: meta.TrailKey}, nil, err
		}
		head := audit.Head(h)
		return trailKey{key: meta.TrailKey}, &head, nil
	}
	sealed, err := s.keyring.NewTrailKey()
	if err != nil {
		return trailKey{}, nil, err
	}
	first, err := s.trail.Peek(node)
	if err != nil {
		return trailKey{}, nil, err
	}
	key, err := store.Update(ctx, s.db, func(tx *store.Tx) ([]byte, error) {
		meta, _, err := tx.Meta()
		if err != nil {
			return nil, err
		}
		if len(meta.TrailKey) == 0 { // else another node of the cluster was first
			meta.TrailKey = sealed
		}
		return meta.TrailKey, errors.Join(tx.PutMeta(meta), tx.PutTrailHead(store.TrailHead(first)))
	})
	return trailKey{key: key, fresh: true}, nil, err
}

// keepTrail compresses and removes finished segments until ctx ends.
func (s *Server) keepTrail(ctx context.Context) {
	r := s.config.AuditKeep
	r.StoreHead = s.keepHead
	if len(s.sinks) > 0 {
		r.Taken = s.takenByAll
	}
	s.trail.Keep(ctx, r)
}

func (s *Server) takenByAll() uint64 {
	least := ^uint64(0)
	for _, f := range s.sinks {
		least = min(least, f.Taken())
	}
	return least
}

// forwardTrail copies the trail to the sinks until stop is called, which waits up to drainFor for
// them to take the last records.
func (s *Server) forwardTrail() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, f := range s.sinks {
		all.Go(func() { f.Run(ctx) })
	}
	return func() {
		end := time.Now().Add(drainFor)
		for _, f := range s.sinks {
			for !f.Down() && f.Sent() < s.trail.Head().Seq && time.Now().Before(end) {
				time.Sleep(drainEvery)
			}
		}
		cancel()
		all.Wait()
	}
}

// watchDisk warns the operator before the disk of the trail is full, because no call is served
// then.
func (s *Server) watchDisk(ctx context.Context) {
	if s.config.AuditDiskAlert < 0 {
		return
	}
	least := uint64(s.config.AuditDiskAlert) << 20
	t := time.NewTicker(diskEvery)
	defer t.Stop()
	low := false
	for {
		free, ok := store.FreeSpace(s.config.AuditDir)
		switch {
		case ok && free < least && !low:
			s.config.Logger.Error(
				"the disk of the audit trail is nearly full: no call is served when it is full; make room, or let retention do so",
				"dir", s.config.AuditDir, "free_mib", free>>20, "alert_mib", s.config.AuditDiskAlert)
		case ok && free >= least && low:
			s.config.Logger.Info("the disk of the audit trail has room again", "free_mib", free>>20)
		}
		low = ok && free < least
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// note records something that the server itself does. The record is on disk when it returns.
func (s *Server) note(ctx context.Context, operation string, details audit.Details) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), headTimeout)
	defer cancel()
	return s.trail.Append(ctx, audit.Record{
		RequestID:     uuid.NewString(),
		Phase:         audit.Call,
		PrincipalType: string(policy.KindSystem),
		Operation:     operation,
		Outcome:       "ok",
		Details:       details,
	}, true)
}

// noteStart records the start with the settings in force, and that the store was restored from a
// copy, if it was.
func (s *Server) noteStart(ctx context.Context) error {
	details := audit.Details{{Name: "node", Value: s.node()}, {Name: "trail", Value: s.heads.node}}
	if s.heads.unfinished {
		details = append(details, audit.Detail{Name: "head_of_last_run", Value: "not stored"})
	}
	details = append(details, s.config.Settings...)
	if err := s.note(ctx, opStart, details); err != nil {
		return err
	}
	if s.restored == "" {
		return nil
	}
	return s.note(ctx, opRestored, audit.Details{{Name: "found", Value: s.restored}})
}
