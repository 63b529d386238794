// Command app is an application that uses the cloud's Secrets Manager client for Go. The tests
// drive it over its standard input and output: the first line says how the client is built, each
// further line asks something of it. It is a process of its own because the client has data
// races, which the race detector of the tests would report as theirs.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk"
	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk/cache"
	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk/logger"
	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk/models"
	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk/service"
	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk/utils"
)

// Setup is the first line.
type Setup struct {
	// FromEnvironment builds the client with nothing said; the environment has all.
	FromEnvironment bool
	// ConfigFile is a properties file that has key and endpoint, instead of the three below.
	ConfigFile                   string
	AccessKeyID, AccessKeySecret string
	Region                       string
	Endpoints                    []string
	// TTL is milliseconds for each secret that is loaded ahead.
	TTL map[string]int64
	// JSONTTL is the member that steers the refresh.
	JSONTTL string
	// FileCache is the directory of a cache on disk; empty means memory.
	FileCache string
	// Remember adds a hook that keeps the last values.
	Remember bool
}

// Ask is each further line.
type Ask struct {
	// Op is get, info, binary, refresh, log or close.
	Op   string
	Name string
	// Parts select lines of the log.
	Parts []string
}

// Answer is the answer to each line, the first one too.
type Answer struct {
	Value, Version, Type, DataType, Created, Config string
	Lines                                           int
	Error, Code                                     string
	Status                                          int
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run() error {
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	if !lines.Scan() {
		return errors.New("standard input has no line that says how the client is built")
	}
	var setup Setup
	if err := json.Unmarshal(lines.Bytes(), &setup); err != nil {
		return errors.New("the first line is not the JSON of a Setup")
	}
	log := &clientLog{}
	if err := logger.RegisterLogger(utils.ModeName, log); err != nil {
		return err
	}
	client, err := build(setup)
	if err := out.Encode(failed(err)); err != nil || client == nil {
		return err
	}
	for lines.Scan() {
		var ask Ask
		if err := json.Unmarshal(lines.Bytes(), &ask); err != nil {
			return errors.New("a line is not the JSON of an Ask")
		}
		if err := out.Encode(answer(client, log, ask)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func build(setup Setup) (*sdk.SecretManagerCacheClient, error) {
	if setup.FromEnvironment {
		return sdk.NewClient()
	}
	source := service.NewDefaultSecretManagerClientBuilder()
	if setup.ConfigFile != "" {
		source = source.WithCustomConfigFile(setup.ConfigFile)
	} else {
		source = source.WithAccessKey(setup.AccessKeyID, setup.AccessKeySecret)
		for _, endpoint := range setup.Endpoints {
			source = source.AddRegionInfo(models.NewRegionInfoWithEndpoint(setup.Region, endpoint))
		}
	}
	// The client's own delays, in milliseconds instead of seconds.
	source = source.WithBackoffStrategy(service.NewFullJitterBackoffStrategy(5, 1, 5))
	b := sdk.NewSecretCacheClientBuilder(source.Build())
	for name, ttl := range setup.TTL {
		b = b.WithSecretTTL(name, ttl)
	}
	if setup.JSONTTL != "" {
		b = b.WithParseJSONTTL(setup.JSONTTL)
	}
	if setup.FileCache != "" {
		b = b.WithCacheSecretStrategy(cache.NewFileCacheSecretStoreStrategy(setup.FileCache, true, "a salt"))
	}
	if setup.Remember {
		b = b.WithSecretCacheHook(newRemembering())
	}
	return b.Build()
}

func answer(client *sdk.SecretManagerCacheClient, log *clientLog, ask Ask) Answer {
	var a Answer
	var err error
	switch ask.Op {
	case "get":
		a.Value, err = client.GetStringValue(ask.Name)
	case "binary":
		var value []byte
		value, err = client.GetBinaryValue(ask.Name)
		a.Value = string(value)
	case "info":
		var info *models.SecretInfo
		if info, err = client.GetSecretInfo(ask.Name); err == nil {
			a.Version = info.VersionId
			a.Type = info.SecretType
			a.DataType = info.SecretDataType
			a.Created = info.CreateTime
			a.Config = info.ExtendedConfig
		}
	case "refresh":
		_, err = client.RefreshNow(ask.Name)
	case "log":
		a.Lines = log.count(ask.Parts)
	case "close":
		err = client.Close()
	default:
		err = fmt.Errorf("op %q is none of get, binary, info, refresh, log, close", ask.Op)
	}
	f := failed(err)
	a.Error, a.Code, a.Status = f.Error, f.Code, f.Status
	return a
}

func failed(err error) Answer {
	if err == nil {
		return Answer{}
	}
	a := Answer{Error: err.Error()}
	if refused, ok := err.(sdkerrors.Error); ok {
		a.Code, a.Status = refused.ErrorCode(), refused.HttpStatus()
	}
	return a
}

// clientLog collects the lines of the client.
type clientLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *clientLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *clientLog) Tracef(format string, args ...any) { l.add(format, args...) }
func (l *clientLog) Debugf(format string, args ...any) { l.add(format, args...) }
func (l *clientLog) Infof(format string, args ...any)  { l.add(format, args...) }
func (l *clientLog) Warnf(format string, args ...any)  { l.add(format, args...) }
func (l *clientLog) Errorf(format string, args ...any) { l.add(format, args...) }
func (l *clientLog) Flush()                            {}

// count is the number of lines that hold every one of the parts.
func (l *clientLog) count(parts []string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		has := true
		for _, part := range parts {
			has = has && strings.Contains(line, part)
		}
		if has {
			n++
		}
	}
	return n
}

// remembering is a hook that keeps the last value: what an application can add so that it
// survives more.
type remembering struct {
	cache.SecretCacheHook
	mu   sync.Mutex
	last map[string]*models.SecretInfo
}

func newRemembering() *remembering {
	return &remembering{
		SecretCacheHook: cache.NewDefaultSecretCacheHook(utils.StageAcsCurrent),
		last:            map[string]*models.SecretInfo{},
	}
}

func (r *remembering) Put(info *models.SecretInfo) (*models.CacheSecretInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[info.SecretName] = info
	return r.SecretCacheHook.Put(info)
}

func (r *remembering) RecoveryGetSecret(name string) (*models.SecretInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[name], nil
}
