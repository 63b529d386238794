package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// look is how often a file is checked between changes: another program may have removed it.
const look = 30 * time.Second

// rendered is one file of the configuration, checked.
type rendered struct {
	File
	source *parsedTemplate
	mode   fs.FileMode
	uid    int // -1 means the agent's own
	gid    int
	notify *notifier // nil means none
}

func parseMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		return 0, errors.New(`must be three or four octal digits in quotes, such as "0640"`)
	}
	return fs.FileMode(n), nil
}

func (s *setup) checkFiles(m *mistakes) {
	paths := map[string]string{}
	for i := range s.Files {
		at := fmt.Sprintf("files[%d]", i)
		r := s.checkFile(at, s.Files[i], m)
		if was := paths[r.Path]; was != "" && r.Path != "" {
			m.add(at+".path", "is also the path of %s", was)
		}
		paths[r.Path] = at
		s.files = append(s.files, r)
	}
}

func (s *setup) checkFile(at string, f File, m *mistakes) *rendered {
	r := &rendered{File: f, uid: -1, gid: -1}
	s.checkTarget(at+".path", f.Path, m)
	var err error
	if r.mode, err = parseMode(f.Mode); err != nil {
		m.add(at+".mode", "%v", err)
	}
	if f.Owner != "" {
		if r.uid, err = userID(f.Owner); err != nil {
			m.add(at+".owner", "%v", err)
		}
	}
	if f.Group != "" {
		if r.gid, err = groupID(f.Group); err != nil {
			m.add(at+".group", "%v", err)
		}
	}
	if text, ok := s.templateText(at, f, m); ok {
		if r.source, err = parseTemplate(f.Path, text); err != nil {
			for line := range strings.Lines(err.Error()) {
				m.add(at+"."+templateSetting(f), "line %s", strings.TrimSuffix(line, "\n"))
			}
		} else if len(r.source.secrets) == 0 {
			m.add(at+"."+templateSetting(f), `names no secret: write {{ secret "NAME" }} or {{ member "NAME" "MEMBER" }}`)
		} else {
			s.secrets = append(s.secrets, r.source.secrets...)
		}
	}
	if f.OnChange != nil {
		r.notify = f.OnChange.check(at+".on_change", m)
	}
	return r
}

func templateSetting(f File) string {
	if f.TemplateFile != "" {
		return "template_file"
	}
	return "template"
}

func (s *setup) templateText(at string, f File, m *mistakes) (string, bool) {
	if !exactlyOne(at, m, []string{"template", "template_file"}, []string{f.Template, f.TemplateFile}) {
		return "", false
	}
	if f.Template != "" {
		return f.Template, true
	}
	data, err := os.ReadFile(f.TemplateFile)
	if err != nil {
		m.add(at+".template_file", "%v", err)
		return "", false
	}
	s.read = append(s.read, f.TemplateFile)
	return string(data), true
}

// checkTarget verifies that a file can be replaced at a path. A file that is a mount point cannot
// be; this is a warning, because the machine that checks a configuration need not be the one that
// runs it.
func (s *setup) checkTarget(at, path string, m *mistakes) {
	if path == "" {
		m.add(at, "is required")
		return
	}
	checkPlace(at, path, m)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
	case info.IsDir():
		m.add(at, "%s is a directory", path)
	case !info.Mode().IsRegular():
		m.add(at, "%s is not a regular file; a link would be replaced, so name the file itself", path)
	case mountPoint(path):
		s.warnings = append(s.warnings, at+": "+mountedAlone(path))
	}
}

// mountedAlone says what is wrong with a file that is a mount point, as with subPath in Kubernetes.
func mountedAlone(path string) string {
	return path + " is a mount point of its own (subPath, or a bind mount of one file): it cannot be replaced, and " +
		"programs that have it mounted so never see a change; mount its directory instead"
}

// world is what a file is rendered from, and what receives its state.
type world interface {
	// values is a complete set of values, or an error.
	values(ctx context.Context, names []string) (map[string]Value, error)
	// hold reports a version as in use until release is called.
	hold(name, version string) (release func())
}

// FileStatus is what is known of a rendered file. It holds no value.
type FileStatus struct {
	Path string `json:"path"`
	// Versions are those that the file holds, by secret.
	Versions map[string]string `json:"versions,omitempty"`
	// RenderedAt is when the file was last found or made right, WrittenAt when it was last written by
	// this process.
	RenderedAt time.Time `json:"rendered_at,omitzero"`
	WrittenAt  time.Time `json:"written_at,omitzero"`
	// Writes counts how often this process has written the file.
	Writes int `json:"writes"`
	// Error is why the file is not correct, or why its program could not be notified; empty if
	// neither.
	Error   string    `json:"error,omitempty"`
	ErrorAt time.Time `json:"error_at,omitzero"`
	// Pending reports that the program which uses the file was not notified of its content yet.
	Pending bool `json:"pending,omitempty"`
}

// fileWriter keeps one file as its template and the values require.
type fileWriter struct {
	*rendered
	world world
	log   *slog.Logger
	wake  chan struct{} // cap 1
	first chan struct{} // closed when the file was right for the first time

	once    sync.Once
	seen    fileState
	gaveUp  bool // on the notification of this content
	release []func()

	mu     sync.Mutex
	status FileStatus // guarded by mu
}

func newFileWriter(r *rendered, w world, log *slog.Logger) *fileWriter {
	return &fileWriter{
		rendered: r,
		world:    w,
		log:      log,
		wake:     make(chan struct{}, 1),
		first:    make(chan struct{}),
		status:   FileStatus{Path: r.Path},
	}
}

// Status is a copy of the state.
func (k *fileWriter) Status() FileStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.status
	s.Versions = maps.Clone(s.Versions)
	return s
}

func (k *fileWriter) update(change func(s *FileStatus)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.status)
}

// wakeUp has the file checked soon. It does not wait.
func (k *fileWriter) wakeUp() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run keeps the file until ctx ends. What it holds is released then.
func (k *fileWriter) run(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	defer func() { k.releaseVersions() }()
	for {
		k.sync(ctx)
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-tick.C:
		}
	}
}

// sync makes the file right, if it is not. On an error the file stays as it is.
func (k *fileWriter) sync(ctx context.Context) {
	values, err := k.world.values(ctx, k.source.secrets)
	if err != nil {
		k.failed(ctx, err)
		return
	}
	versions := map[string]string{}
	for name, v := range values {
		versions[name] = v.VersionID
	}
	before := k.Status()
	now, _ := stateOf(k.Path)
	if before.RenderedAt.IsZero() || !maps.Equal(before.Versions, versions) || now != k.seen {
		changed, err := k.make(values)
		if err != nil {
			k.failed(ctx, err)
			return
		}
		k.recordWrite(changed, versions)
	}
	if k.Status().Pending {
		if k.gaveUp {
			return // until the next change; the error stays
		}
		err := k.notify.notifyProgram(ctx, k.Path, k.wake)
		switch k.gaveUp = errors.Is(err, errGaveUp); {
		case err == nil:
		case k.gaveUp && k.notify.noProgramYet(err):
			k.log.Info("no program yet: pid_file does not exist", "path", k.Path, "pid_file", k.notify.PIDFile)
		default:
			if !k.notify.noProgramYet(err) {
				k.failed(ctx, err)
			}
			k.once.Do(func() { close(k.first) }) // the file is right
			return
		}
		k.update(func(s *FileStatus) { s.Pending = false })
	}
	k.holdVersions(versions)
	k.update(func(s *FileStatus) { s.Error, s.ErrorAt = "", time.Time{} })
	k.once.Do(func() { close(k.first) })
}

func (k *fileWriter) recordWrite(changed bool, versions map[string]string) {
	k.update(func(s *FileStatus) {
		s.Versions, s.RenderedAt = versions, time.Now()
		if changed {
			s.WrittenAt, s.Pending = s.RenderedAt, k.notify != nil
			s.Writes++
		}
	})
	if changed {
		k.gaveUp = false
		k.log.Info("file written", "path", k.Path, "versions", versionsText(versions))
	}
}

func versionsText(versions map[string]string) string {
	var b bytes.Buffer
	for i, name := range slices.Sorted(maps.Keys(versions)) {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%s", name, versions[name])
	}
	return b.String()
}

func (k *fileWriter) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // the agent stops; that is no state of the file
	}
	text := err.Error()
	news := false
	k.update(func(s *FileStatus) {
		news = s.Error != text
		s.Error, s.ErrorAt = text, time.Now()
	})
	if news { // once, and not at every check
		message := "file not written"
		if errors.Is(err, errGaveUp) || errors.Is(err, errInterrupted) {
			message = "program not notified"
		}
		k.log.Error(message, "path", k.Path, "err", err)
	}
}

// holdVersions reports the versions in the file as those in use, once the program that uses it was
// notified.
func (k *fileWriter) holdVersions(versions map[string]string) {
	var held []func()
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		held = append(held, k.world.hold(name, versions[name]))
	}
	k.releaseVersions()
	k.release = held
}

func (k *fileWriter) releaseVersions() {
	for _, release := range k.release {
		release()
	}
	k.release = nil
}

// make renders the file and replaces it when it is not so already. changed reports whether its
// content is another one.
func (k *fileWriter) make(values map[string]Value) (changed bool, err error) {
	content, err := k.source.render(values)
	if err != nil {
		return false, fmt.Errorf("render: %w", err)
	}
	old, _, err := readIn(k.Path, maxRendered)
	same := err == nil && bytes.Equal(old, content)
	if state, ok := stateOf(k.Path); !same || !ok || !k.asOwned(state) {
		if err := k.write(content); err != nil {
			return false, err
		}
	}
	k.seen, _ = stateOf(k.Path)
	return !same, nil
}

func (k *fileWriter) asOwned(s fileState) bool {
	return s.mode == k.mode && (k.uid < 0 || s.uid == k.uid) && (k.gid < 0 || s.gid == k.gid)
}

// write replaces the file by rename, so that a reader sees the old content or the new one, and a
// crash leaves one of them.
func (k *fileWriter) write(content []byte) error {
	name := filepath.Base(k.Path)
	dir, err := openDirectory(filepath.Dir(k.Path))
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer dir.close()
	if err := dir.isRegularOrAbsent(name); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	temporary := "." + name + ".keyturn-" + rand.Text()
	f, err := dir.create(temporary)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer dir.remove(temporary)
	_, err = f.Write(content)
	if err == nil && (k.uid >= 0 || k.gid >= 0) {
		err = f.Chown(k.uid, k.gid)
	}
	if err == nil {
		err = f.Chmod(k.mode)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := dir.rename(temporary, name); err != nil {
		if busy(err) || mountPoint(k.Path) {
			return errors.New("write: " + mountedAlone(k.Path))
		}
		return fmt.Errorf("write: %w", err)
	}
	dir.sync()
	return nil
}
